import { fc } from "../support/fast-check.ts";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { acquireLock, LockedError, type LockOptions } from "../../src/lib/files/lock-file.ts";
import { createProcessTable } from "../../src/lib/files/lock-owner.ts";
import { eventually } from "../support/eventually.ts";
import { fullFolder } from "../support/full-folder.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const processes = createProcessTable({ pid: process.pid, host: "here", exists: () => true });
const elsewhere = JSON.stringify({ ...processes.self, host: "elsewhere", token: "t" });

/** Takes a lock by a clock of its own. `onSleep` is what others do meanwhile, told the ms that have gone by. */
function starter(path: string, onSleep: (atMs: number) => void = () => undefined, more: Partial<LockOptions> = {}) {
  const clock = createManualClock();
  const sleep = (ms: number): Promise<void> => {
    clock.advance(ms);
    onSleep(clock.monotonic());
    return Promise.resolve();
  };
  const acquired = acquireLock({ path, processes, clock, sleep, onLost: () => undefined, ...more });
  return { acquired, waitedMs: () => clock.monotonic() };
}

function writeLock(path: string, text: string, mtimeMs: number): void {
  writeFileSync(path, text);
  utimesSync(path, mtimeMs / 1000, mtimeMs / 1000);
}

const skew = fc.integer({ min: -400 * 86_400_000, max: 400 * 86_400_000 });

describe("D3: the lock of another machine, whatever its clock shows", () => {
  it("is never taken while its owner shows signs of life", async () => {
    await fc.assert(
      fc.asyncProperty(skew, fc.integer({ min: 1000, max: 14_000 }), async (skewMs, everyMs) => {
        const path = join(tempDir(), ".lock");
        const base = Date.now() + skewMs;
        writeLock(path, elsewhere, base);
        let beats = 0;
        const { acquired, waitedMs } = starter(path, (at) => {
          if (Math.floor(at / everyMs) > beats) writeLock(path, elsewhere, base + everyMs * ++beats);
        });
        await expect(acquired).rejects.toThrow(LockedError);
        await expect(acquired).rejects.toThrow("elsewhere");
        expect(waitedMs()).toBeLessThan(15_500);
        expect(readFileSync(path, "utf8")).toBe(elsewhere);
      }),
      { numRuns: 25 },
    );
  });

  it("is taken after 15 s without any, and 20 s at the most, also with what a dead starter left", async () => {
    await fc.assert(
      fc.asyncProperty(
        skew,
        fc.boolean(),
        fc.constantFrom(elsewhere, "", "\0\0", "{"),
        async (skewMs, hasGuard, text) => {
          const path = join(tempDir(), ".lock");
          writeLock(path, text, Date.now() + skewMs);
          if (hasGuard) writeLock(`${path}.takeover`, elsewhere, Date.now() + skewMs);
          const { acquired, waitedMs } = starter(path);
          const lock = await acquired;
          expect(waitedMs()).toBeGreaterThanOrEqual(15_000);
          expect(waitedMs()).toBeLessThanOrEqual(20_000);
          await lock.release();
          expect(readdirSync(join(path, ".."))).toEqual([]);
        },
      ),
      { numRuns: 25 },
    );
  });

  it("is taken at once where its owner has let it go", async () => {
    const path = join(tempDir(), ".lock");
    writeLock(path, elsewhere, Date.now());
    const { acquired, waitedMs } = starter(path, (at) => {
      if (at >= 3000) rmSync(path, { force: true });
    });
    await (await acquired).release();
    expect(waitedMs()).toBeLessThan(4000);
  });

  it("is another's where another has taken it meanwhile", async () => {
    const path = join(tempDir(), ".lock");
    writeLock(path, elsewhere, 0);
    const other = JSON.stringify({ ...processes.self, host: "third", token: "u" });
    const { acquired } = starter(path, (at) => {
      if (at === 10_000) writeLock(path, other, 0);
    });
    await expect(acquired).rejects.toThrow("on third");
  });

  it("stops being waited for when the start is given up", async () => {
    const path = join(tempDir(), ".lock");
    writeLock(path, elsewhere, 0);
    const stop = new AbortController();
    const { acquired } = starter(
      path,
      () => {
        stop.abort(new Error("SIGTERM"));
      },
      { signal: stop.signal },
    );
    await expect(acquired).rejects.toThrow("SIGTERM");
    expect(readFileSync(path, "utf8")).toBe(elsewhere);
  });
});

describe("D3: a lock that cannot be used", () => {
  it.each<[string, (path: string) => void]>([
    [
      "a folder",
      (path) => {
        mkdirSync(path);
      },
    ],
    [
      "a link",
      (path) => {
        symlinkSync("nowhere", path);
      },
    ],
    [
      "in a folder that is missing",
      (path) => {
        rmSync(join(path, ".."), { recursive: true });
      },
    ],
  ])("is named where it is %s", async (_, spoil) => {
    const path = join(tempDir(), ".lock");
    spoil(path);
    await expect(starter(path).acquired).rejects.toThrow(path);
  });

  it("is not left behind by a start that could not write it", async (test) => {
    const full = fullFolder();
    if (full === null) return test.skip();
    const path = join(full.path, ".lock");
    await expect(starter(path).acquired).rejects.toThrow(path);
    expect(existsSync(path)).toBe(false);
  });
});

describe("D3, D9: a lock that is lost", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it.each<[string, (path: string) => void]>([
    [
      "taken",
      (path) => {
        writeFileSync(path, elsewhere);
      },
    ],
    ["removed", unlinkSync],
    [
      "moved",
      (path) => {
        renameSync(join(path, ".."), join(path, "..", "..", "users2"));
      },
    ],
    [
      "moved",
      (path) => {
        renameSync(join(path, ".."), join(path, "..", "..", "users2"));
        mkdirSync(join(path, ".."));
      },
    ],
  ])("was %s, and is told once", async (expected, lose) => {
    const folder = join(tempDir(), "users");
    mkdirSync(folder);
    const path = join(folder, ".lock");
    const losses: string[] = [];
    const onLost = (loss: string): number => losses.push(loss);
    const lock = await acquireLock({ path, processes, clock: createManualClock(), onLost });
    vi.advanceTimersByTime(5_000);
    lose(path);
    for (let i = 0; i < 3; i++) vi.advanceTimersByTime(5_000);
    await eventually(() => {
      expect(losses).toEqual([expected]);
    });
    await lock.release();
  });

  it("is not lost by its own release", async () => {
    const path = join(tempDir(), ".lock");
    const losses: string[] = [];
    const onLost = (loss: string): number => losses.push(loss);
    const lock = await acquireLock({ path, processes, clock: createManualClock(), onLost });
    vi.advanceTimersByTime(5_000);
    await lock.release();
    await new Promise((resolve) => setImmediate(resolve));
    expect(losses).toEqual([]);
  });
});
