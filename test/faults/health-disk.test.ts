import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDiskProbe } from "../../src/lib/files/disk-probe.ts";
import { fullFolder } from "../support/full-folder.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { startProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

describe("D8: the disk probe of /healthz", () => {
  it("leaves no file behind on a full disk, however often it is asked", async (test) => {
    const full = fullFolder();
    if (full === null) return test.skip();
    const clock = createManualClock();
    const probe = await openDiskProbe(full.path, clock);
    for (let i = 0; i < 5; i++) {
      await expect(probe.check()).rejects.toMatchObject({ code: full.code });
      clock.advance(10_000);
    }
    expect(readdirSync(full.path)).toEqual(["full"]);
  });

  it("removes what a killed process left, of earlier versions too, and nothing else", async () => {
    const folder = tempDir();
    for (const name of [".probe", ".probe-0f8fad5b-d9cb-469f-a165-70867728950e", ".probe-mine", "alice.toml"]) {
      writeFileSync(join(folder, name), "");
    }
    await openDiskProbe(folder, createManualClock());
    expect(readdirSync(folder).sort()).toEqual([".probe-mine", "alice.toml"]);
  });

  it("touches the disk once for many calls, and again later", async () => {
    const folder = tempDir();
    const clock = createManualClock();
    const probe = await openDiskProbe(folder, clock);
    await Promise.all(Array.from({ length: 50 }, () => probe.check()));
    // Where the name is taken by a folder, a write would fail.
    mkdirSync(join(folder, ".probe"));
    clock.advance(4_999);
    await probe.check();
    clock.advance(1);
    await expect(probe.check()).rejects.toThrow("EISDIR");
  });

  it("follows no link", async () => {
    const folder = tempDir();
    const probe = await openDiskProbe(folder, createManualClock());
    symlinkSync(join(folder, "target"), join(folder, ".probe"));
    await expect(probe.check()).rejects.toMatchObject({ code: "ELOOP" });
    expect(existsSync(join(folder, "target"))).toBe(false);
  });

  it("says by /healthz that all is well, and leaves nothing in the folder", async () => {
    const proxy = await startProxy();
    onTestFinished(() => proxy.dispose());
    for (let i = 0; i < 3; i++) {
      const body = (await (await fetch(`${proxy.url}/healthz`)).json()) as { checks: { disk: unknown } };
      expect(body.checks.disk).toEqual({ ok: true });
    }
    expect(readdirSync(join(proxy.folder, "users")).filter((name) => name.startsWith(".probe"))).toEqual([]);
  });
});
