import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type BehaviourLog, type BehaviourLogOptions, createBehaviourLog } from "../../src/events/behaviour-log.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { chatFinished, loginFailed } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";

const start = Date.UTC(2026, 10, 22, 10);
const dayOf = (at: number) => new Date(at).toISOString().slice(0, 10);

let root: string;
let clock = createManualClock(start);
let log = createCapturedLog();
let open: BehaviourLog[] = [];

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "behaviour-log-"));
  clock = createManualClock(start);
  log = createCapturedLog();
  open = [];
});

afterEach(async () => {
  await Promise.all(open.map((behaviour) => behaviour.close()));
  await rm(root, { recursive: true, force: true });
});

function startLog(changes: Partial<BehaviourLogOptions> = {}): BehaviourLog {
  const behaviour = createBehaviourLog({
    logsDir: root,
    // Long enough for the tests to say themselves when to write.
    flushMs: 60_000,
    maxQueued: 1000,
    maxFileBytes: 1 << 20,
    keepDays: 30,
    dayOf,
    clock,
    log,
    ...changes,
  });
  open.push(behaviour);
  return behaviour;
}

const file = (name: string) => path.join(root, "users", name);

async function traces(name: string): Promise<string[]> {
  const text = await readFile(file(name), "utf8");
  expect(text.endsWith("\n")).toBe(true);
  return text
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { trace_id: string }).trace_id);
}

describe("behaviour log", () => {
  test("writes an event as one line of listed fields into the user's file of the day", async () => {
    const behaviour = startLog();
    behaviour.sink({ ...chatFinished({ model: 'a"b\nc' }), prompt: "planted" } as never);
    await behaviour.flush();
    const text = await readFile(file("alice/2026-11-22.jsonl"), "utf8");
    expect(text.split("\n")).toHaveLength(2);
    expect(JSON.parse(text)).toEqual({
      ts: "2026-11-22T10:00:00.000Z",
      event: "chat.finished",
      trace_id: "trace-1",
      ip: "192.0.2.1",
      user: "alice",
      model: 'a"b\nc',
      provider: "deepseek",
      stream: true,
      outcome: "completed",
      code: "ok",
      status: 200,
      requests: 1,
      input_tokens: 100,
      cached_tokens: 40,
      output_tokens: 11,
      reasoning_tokens: 5,
      cost_nano: 1500,
      currency: "CNY",
      estimated: false,
      first_event_ms: 30,
      generation_ms: 200,
      duration_ms: 250,
      retries: 0,
    });
  });

  test("writes by itself after a while, and at once where a user has a lot", async () => {
    const soon = startLog({ flushMs: 10 });
    soon.sink(chatFinished());
    await vi.waitUntil(() => soon.health().queued === 0);
    expect(await traces("alice/2026-11-22.jsonl")).toHaveLength(1);

    const later = startLog();
    for (let i = 0; i < 300; i++) later.sink(chatFinished({ user: "bob" }));
    await vi.waitUntil(() => later.health().queued < 300);
    expect((await traces("bob/2026-11-22.jsonl")).length).toBeGreaterThan(0);
  });

  test("failed logins of accounts stand in their own file, those of invented or strange names in a shared one", async () => {
    const behaviour = startLog();
    behaviour.sink(loginFailed());
    behaviour.sink(loginFailed({ user: "nobody", known: false }));
    behaviour.sink(loginFailed({ user: "../../etc/passwd", known: true }));
    behaviour.sink(chatFinished({ user: "_unknown" }));
    behaviour.sink({ type: "request.failed", at: start, traceId: "t", ip: "i", code: "not_found", status: 404 });
    await behaviour.close();
    expect(await readdir(path.join(root, "users"))).toEqual(["_unknown", "alice"]);
    expect(await traces("_unknown/2026-11-22.jsonl")).toHaveLength(3);
    expect(await traces("alice/2026-11-22.jsonl")).toHaveLength(1);
  });

  test("each event goes to the file of its own day", async () => {
    const behaviour = startLog();
    const midnight = Date.UTC(2026, 10, 23);
    behaviour.sink(chatFinished({ at: midnight - 1, traceId: "before" }));
    behaviour.sink(chatFinished({ at: midnight, traceId: "after" }));
    behaviour.sink(chatFinished({ at: midnight - 2, traceId: "late" }));
    await behaviour.flush();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["before", "late"]);
    expect(await traces("alice/2026-11-23.jsonl")).toEqual(["after"]);
  });

  test("goes on in a new file where one is full, and after a restart in the last one", async () => {
    const options = { maxFileBytes: 1024 };
    const first = startLog(options);
    for (let i = 0; i < 5; i++) first.sink(chatFinished({ traceId: `t${i}` }));
    await first.close();
    const second = startLog(options);
    second.sink(chatFinished({ traceId: "t5" }));
    await second.close();
    const names = await readdir(file("alice"));
    expect(names.length).toBeGreaterThan(2);
    const all: string[] = [];
    for (let part = 0; part < names.length; part++) {
      const name = part === 0 ? "alice/2026-11-22.jsonl" : `alice/2026-11-22.${part}.jsonl`;
      expect((await readFile(file(name))).length).toBeLessThanOrEqual(1024);
      all.push(...(await traces(name)));
    }
    expect(all).toEqual(["t0", "t1", "t2", "t3", "t4", "t5"]);
  });

  test("a line longer than a file may be is written whole", async () => {
    const behaviour = startLog({ maxFileBytes: 100 });
    behaviour.sink(chatFinished({ traceId: "a" }));
    behaviour.sink(chatFinished({ traceId: "b" }));
    await behaviour.close();
    expect([await traces("alice/2026-11-22.jsonl"), await traces("alice/2026-11-22.1.jsonl")]).toEqual([["a"], ["b"]]);
  });

  test("after a crash in the middle of a line the next one stands alone", async () => {
    await mkdir(file("alice"), { recursive: true });
    await writeFile(file("alice/2026-11-22.jsonl"), '{"trace_id":"whole"}\n{"trace_');
    const behaviour = startLog();
    behaviour.sink(chatFinished());
    await behaviour.close();
    const lines = (await readFile(file("alice/2026-11-22.jsonl"), "utf8")).split("\n");
    expect(lines.slice(0, 2)).toEqual(['{"trace_id":"whole"}', '{"trace_']);
    expect(JSON.parse(lines[2] ?? "")).toMatchObject({ trace_id: "trace-1" });
  });

  test("more users than files kept open are all served", async () => {
    const behaviour = startLog();
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 100; i++) behaviour.sink(chatFinished({ user: `user${i}`, traceId: `${round}` }));
      await behaviour.flush();
    }
    for (const i of [0, 50, 99]) expect(await traces(`user${i}/2026-11-22.jsonl`)).toEqual(["0", "1"]);
  });

  test("a file that an operator deleted is made anew", async () => {
    const behaviour = startLog();
    behaviour.sink(chatFinished({ traceId: "old" }));
    await behaviour.flush();
    await rm(path.join(root, "users"), { recursive: true });
    clock.advance(1000);
    behaviour.sink(chatFinished({ traceId: "new" }));
    await behaviour.flush();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["new"]);
  });

  test("a file that cannot be written keeps its lines while others go on, and they follow when it can", async () => {
    const behaviour = startLog();
    await mkdir(path.join(root, "users"), { recursive: true });
    await writeFile(file("alice"), "in the way");
    behaviour.sink(chatFinished({ traceId: "a1" }));
    behaviour.sink(chatFinished({ user: "bob", traceId: "b1" }));
    await behaviour.flush();
    expect(await traces("bob/2026-11-22.jsonl")).toEqual(["b1"]);
    expect(behaviour.health()).toMatchObject({ alive: true, queued: 1, lastError: expect.stringMatching(/^E/) });

    await rm(file("alice"));
    behaviour.sink(chatFinished({ traceId: "a2" }));
    await behaviour.flush();
    expect(behaviour.health().queued).toBe(2);
    clock.advance(500);
    await behaviour.flush();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["a1", "a2"]);
    expect(behaviour.health()).toMatchObject({ queued: 0, lastError: null });
    expect(behaviour.health().dropped).toEqual({ queue_full: 0, io_error: 0, closed: 0 });
    expect(log.lines.filter(({ level }) => level === "error")).toHaveLength(1);
  });

  test("lines that come while a file is failing are kept in order", async () => {
    let broken = true;
    const behaviour = startLog({
      openFile: () => {
        const written: string[] = [];
        if (broken) return Promise.reject(new Error("no space left"));
        return Promise.resolve({
          size: 0,
          append: (bytes) => {
            written.push(bytes.toString());
            return writeFile(file("alice/out"), written.join(""));
          },
          isDeleted: () => Promise.resolve(false),
          close: () => Promise.resolve(),
        });
      },
    });
    for (const traceId of ["1", "2", "3"]) {
      behaviour.sink(chatFinished({ traceId }));
      await behaviour.flush();
      clock.advance(100_000);
    }
    expect(behaviour.health()).toMatchObject({ queued: 3, lastError: "no space left" });
    broken = false;
    await behaviour.flush();
    expect(await traces("alice/out")).toEqual(["1", "2", "3"]);
  });

  test("a failing file may use up a quarter of the queue; more of its lines are dropped, counted and reported", async () => {
    const behaviour = startLog({ maxQueued: 8 });
    await mkdir(path.join(root, "users"), { recursive: true });
    await writeFile(file("alice"), "in the way");
    behaviour.sink(chatFinished());
    await behaviour.flush();
    for (let i = 0; i < 9; i++) behaviour.sink(chatFinished());
    expect(behaviour.health()).toMatchObject({ queued: 2, dropped: { io_error: 8 } });
    for (let i = 0; i < 9; i++) behaviour.sink(chatFinished({ user: "bob", traceId: `${i}` }));
    expect(behaviour.health()).toMatchObject({ queued: 8, dropped: { io_error: 8, queue_full: 3 } });
    await behaviour.flush();
    expect(await traces("bob/2026-11-22.jsonl")).toEqual(["0", "1", "2", "3", "4", "5"]);
    expect(log.lines.filter(({ level }) => level === "warn").map(({ facts }) => facts)).toEqual([
      { dropped_so_far: { queue_full: 3, io_error: 8, closed: 0 } },
    ]);
  });

  test("closing writes what waits, counts what it cannot write, and drops what comes later", async () => {
    const behaviour = startLog();
    await mkdir(path.join(root, "users"), { recursive: true });
    await writeFile(file("bob"), "in the way");
    for (let i = 0; i < 100; i++) behaviour.sink(chatFinished({ traceId: `${i}` }));
    behaviour.sink(chatFinished({ user: "bob" }));
    await behaviour.close();
    behaviour.sink(chatFinished());
    expect(await traces("alice/2026-11-22.jsonl")).toHaveLength(100);
    expect(behaviour.health()).toMatchObject({ alive: false, queued: 0 });
    expect(behaviour.health().dropped).toEqual({ queue_full: 0, io_error: 1, closed: 1 });
  });

  test("events that come while a round is being written are neither lost nor repeated", async () => {
    const behaviour = startLog({ flushMs: 1 });
    const sent: string[] = [];
    for (let i = 0; i < 500; i++) {
      sent.push(`${i}`);
      behaviour.sink(chatFinished({ traceId: `${i}` }));
      if (i % 20 === 0) await Promise.race([behaviour.flush(), Promise.resolve()]);
    }
    await behaviour.close();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(sent);
  });

  test("old files are removed at the start and once a day", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    try {
      await mkdir(file("alice"), { recursive: true });
      for (const day of ["2026-10-22", "2026-10-23", "2026-10-24"]) await writeFile(file(`alice/${day}.jsonl`), "x\n");
      startLog();
      await vi.waitUntil(async () => (await readdir(file("alice"))).length === 2);
      clock.advance(86_400_000);
      vi.advanceTimersByTime(86_400_000);
      await vi.waitUntil(async () => (await readdir(file("alice"))).length === 1);
      expect(await readdir(file("alice"))).toEqual(["2026-10-24.jsonl"]);
    } finally {
      vi.useRealTimers();
    }
  });
});
