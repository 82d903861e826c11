import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { acquireLock, LockedError, type Lock } from "../../src/lib/files/lock-file.ts";
import { createProcessTable, type LockOwner } from "../../src/lib/files/lock-owner.ts";
import { eventually } from "../support/eventually.ts";
import { createManualClock } from "../support/manual-clock.ts";
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

function writeLock(path: string, owner: Partial<LockOwner>): void {
  writeFileSync(path, JSON.stringify({ ...processes.self, token: "t", ...owner }));
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

  it("treats an empty file, whose maker died while making it, as one without a known owner", async () => {
    const path = join(tempDir(), ".lock");
    writeFileSync(path, "");
    const waits: string[] = [];
    const { clock, sleep } = pretendedTime();
    const onWait = (owner: string): number => waits.push(owner);
    const lock = await acquireLock({ path, processes, clock, sleep, onWait, onLost: () => undefined });
    expect(waits).toEqual(["an unknown process"]);
    await lock.release();
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
      const losses: string[] = [];
      const onLost = (loss: string): number => losses.push(loss);
      const lock = await acquireLock({ path, processes, clock: systemClock, onLost });
      writeLock(path, { host: "elsewhere" });
      vi.advanceTimersByTime(5_000);
      await eventually(() => {
        expect(losses).toEqual(["taken"]);
      });
      await lock.release();
      expect(readFileSync(path, "utf8")).toContain("elsewhere");
    } finally {
      vi.useRealTimers();
    }
  });
});

/** A clock that moves only while somebody sleeps by it. */
function pretendedTime() {
  const clock = createManualClock();
  const sleep = (ms: number): Promise<void> => {
    clock.advance(ms);
    return Promise.resolve();
  };
  return { clock, sleep };
}

function procWith(folder: string, state: string): string {
  const fields = [state, ...Array.from({ length: 18 }, () => "0"), "4711"];
  mkdirSync(join(folder, "7"), { recursive: true });
  writeFileSync(join(folder, "7", "stat"), `7 (odd) name) ${fields.join(" ")}\n`);
  return folder;
}
