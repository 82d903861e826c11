import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, readdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { acquireLock, LockedError, type Lock } from "../../src/lib/files/lock-file.ts";
import { createProcessTable, type LockOwner } from "../../src/lib/files/lock-owner.ts";
import { tempDir } from "../support/temp-dir.ts";

const processes = createProcessTable({ pid: process.pid, host: "here", exists });

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function acquire(path: string, table = processes): Promise<Lock> {
  return acquireLock({ path, processes: table, clock: systemClock, onLost: () => undefined });
}

function writeLock(path: string, owner: Partial<LockOwner>, ageMs = 0): void {
  writeFileSync(path, JSON.stringify({ ...processes.self, token: "t", ...owner }));
  const seconds = (Date.now() - ageMs) / 1000;
  utimesSync(path, seconds, seconds);
}

describe("acquireLock", () => {
  it("refuses a second instance and names path, pid and host", async () => {
    const path = join(tempDir(), ".lock");
    const lock = await acquire(path);
    const refusal = await acquire(path).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(LockedError);
    expect(String(refusal)).toContain(path);
    expect(String(refusal)).toContain(`process ${process.pid} on here`);
    await lock.release();
    await (await acquire(path)).release();
    expect(existsSync(path)).toBe(false);
  });

  it("takes over at once from a process that was killed", async () => {
    const path = join(tempDir(), ".lock");
    const child = spawn("sleep", ["1000"]);
    await once(child, "spawn");
    const { pid } = child;
    if (pid === undefined) throw new Error("no pid");
    writeLock(path, createProcessTable({ pid, host: "here", exists }).self);
    await expect(acquire(path)).rejects.toThrow(`process ${pid}`);
    child.kill("SIGKILL");
    await once(child, "exit");
    await (await acquire(path)).release();
  });

  it("takes over from an owner whose pid now belongs to another process", async () => {
    const path = join(tempDir(), ".lock");
    writeLock(path, { startedAt: "1" });
    await (await acquire(path)).release();
  });

  it("takes over from a zombie, which only its parent has yet to notice", async () => {
    const folder = tempDir();
    const path = join(folder, ".lock");
    const self = createProcessTable({ pid: 7, host: "here", exists: () => true, procDir: procWith(folder, "Z") });
    writeLock(path, { pid: 7, place: self.self.place, startedAt: self.self.startedAt });
    await (await acquire(path, self)).release();
    const running = createProcessTable({ pid: 7, host: "here", exists: () => true, procDir: procWith(folder, "S") });
    writeLock(path, { pid: 7, place: running.self.place, startedAt: running.self.startedAt });
    await expect(acquire(path, running)).rejects.toThrow(LockedError);
  });

  it.each([
    ["another host", { host: "elsewhere" }],
    ["another container with the same host name", { place: "another boot pid:[1]" }],
  ])("believes the heartbeat of an owner on %s", async (_, owner) => {
    const path = join(tempDir(), ".lock");
    writeLock(path, owner, 5_000);
    await expect(acquire(path)).rejects.toMatchObject({ staleInMs: expect.closeTo(10_000, -4) as number });
    writeLock(path, owner, 16_000);
    await (await acquire(path)).release();
  });

  it("treats an empty file, whose maker died while making it, as one without a known owner", async () => {
    const path = join(tempDir(), ".lock");
    writeFileSync(path, "");
    await expect(acquire(path)).rejects.toThrow("an unknown process");
    const old = Date.now() / 1000 - 16;
    utimesSync(path, old, old);
    await (await acquire(path)).release();
  });

  it("lets exactly one of many starters take over a stale lock", async () => {
    for (let round = 0; round < 10; round++) {
      const folder = tempDir();
      const path = join(folder, ".lock");
      writeLock(path, { startedAt: "1" });
      const results = await Promise.allSettled(Array.from({ length: 8 }, () => acquire(path)));
      const locks = results.filter((result) => result.status === "fulfilled").map(({ value }) => value);
      expect(locks).toHaveLength(1);
      for (const lock of locks) await lock.release();
      expect(readdirSync(folder)).toEqual([]);
    }
  });

  it("leaves a lock that has become another's alone, and tells its own process to stop", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    try {
      const path = join(tempDir(), ".lock");
      let lost: (() => void) | undefined;
      const told = new Promise<void>((resolve) => (lost = resolve));
      const lock = await acquireLock({ path, processes, clock: systemClock, onLost: () => lost?.() });
      writeLock(path, { host: "elsewhere" });
      vi.advanceTimersByTime(5_000);
      await told;
      await lock.release();
      expect(readFileSync(path, "utf8")).toContain("elsewhere");
    } finally {
      vi.useRealTimers();
    }
  });
});

function procWith(folder: string, state: string): string {
  const fields = [state, ...Array.from({ length: 18 }, () => "0"), "4711"];
  mkdirSync(join(folder, "7"), { recursive: true });
  writeFileSync(join(folder, "7", "stat"), `7 (odd) name) ${fields.join(" ")}\n`);
  return folder;
}
