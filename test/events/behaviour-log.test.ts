import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { describe, expect, test, vi } from "vitest";
import { openAppendFile } from "../../src/lib/files/append-file.ts";
import { useBehaviourLog } from "../support/behaviour-log.ts";
import { chatFinished, loginFailed } from "../support/events.ts";

const { state, file, start, traces } = useBehaviourLog();

describe("behaviour log", () => {
  test("writes an event as one line of listed fields into the user's file of the day", async () => {
    const behaviour = start();
    behaviour.sink({ ...chatFinished({ model: 'a"b\nc' }), prompt: "planted" } as never);
    await behaviour.flush();
    const text = await readFile(file("alice/2026-11-22.jsonl"), "utf8");
    expect(text.split("\n")).toHaveLength(2);
    expect(JSON.parse(text)).toEqual({
      ts: "2026-11-22T10:00:00.000Z",
      event: "chat.finished",
      id: "event-1",
      trace_id: "trace-1",
      ip: "192.0.2.1",
      user: "alice",
      key_id: "",
      client: "",
      group: "",
      api: "chat",
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
      queue_ms: 0,
      retries: 0,
    });
  });

  test("writes by itself after a while, and at once where a user has a lot", async () => {
    const soon = start({ flushMs: 10 });
    soon.sink(chatFinished());
    await vi.waitUntil(() => soon.health().queued === 0, 20_000);
    expect(await traces("alice/2026-11-22.jsonl")).toHaveLength(1);

    const later = start();
    for (let i = 0; i < 300; i++) later.sink(chatFinished({ user: "bob" }));
    await vi.waitUntil(() => later.health().queued < 300, 20_000);
    expect((await traces("bob/2026-11-22.jsonl")).length).toBeGreaterThan(0);
  });

  test("failed logins of accounts stand in their own file, those of invented or strange names in a shared one", async () => {
    const behaviour = start();
    behaviour.sink(loginFailed());
    behaviour.sink(loginFailed({ user: "nobody", known: false }));
    behaviour.sink(loginFailed({ user: "../../etc/passwd", known: true }));
    behaviour.sink(chatFinished({ user: "_unknown" }));
    behaviour.sink({
      type: "request.finished",
      route: "other",
      at: 0,
      traceId: "t",
      ip: "i",
      code: "not_found",
      status: 404,
    });
    await behaviour.close();
    expect(await readdir(file(""))).toEqual(["_unknown", "alice"]);
    expect(await traces("_unknown/2026-11-22.jsonl")).toHaveLength(3);
    expect(await traces("alice/2026-11-22.jsonl")).toHaveLength(1);
  });

  test("each event goes to the file of its own day", async () => {
    const behaviour = start();
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
    const first = start(options);
    for (let i = 0; i < 5; i++) first.sink(chatFinished({ traceId: `t${i}` }));
    await first.close();
    const second = start(options);
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
    const behaviour = start({ maxFileBytes: 100 });
    behaviour.sink(chatFinished({ traceId: "a" }));
    behaviour.sink(chatFinished({ traceId: "b" }));
    await behaviour.close();
    expect([await traces("alice/2026-11-22.jsonl"), await traces("alice/2026-11-22.1.jsonl")]).toEqual([["a"], ["b"]]);
  });

  test("3,000 users who write at once are all served, in order, with a bounded number of open files", async () => {
    const users = Array.from({ length: 3000 }, (_, index) => `user${index}`);
    let [open, mostOpen] = [0, 0];
    const behaviour = start({
      maxOpen: 64,
      maxQueued: 12_000,
      openFile: async (name) => {
        open += 1;
        mostOpen = Math.max(mostOpen, open);
        const file = await openAppendFile(name);
        return {
          ...file,
          size: 0,
          close: () => {
            open -= 1;
            return file.close();
          },
        };
      },
    });
    for (const round of ["0", "1"]) {
      for (const traceId of [round, `${round} again`])
        for (const user of users) behaviour.sink(chatFinished({ user, traceId }));
      // What comes while a round is being written is written in the next one.
      await Promise.race([behaviour.flush(), Promise.resolve()]);
    }
    await behaviour.close();
    expect(behaviour.health().dropped).toEqual({ queue_full: 0, io_error: 0, closed: 0 });
    for (const user of users) {
      expect(await traces(`${user}/2026-11-22.jsonl`)).toEqual(["0", "0 again", "1", "1 again"]);
    }
    // Those that are being written to may be above.
    expect(mostOpen).toBeLessThanOrEqual(64 + 32);
    expect(open).toBe(0);
  });

  test("old files are removed at the start and once a day", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    try {
      await mkdir(file("alice"), { recursive: true });
      for (const day of ["2026-10-22", "2026-10-23", "2026-10-24"]) await writeFile(file(`alice/${day}.jsonl`), "x\n");
      start();
      await vi.waitUntil(async () => (await readdir(file("alice"))).length === 2, 20_000);
      state.clock.advance(86_400_000);
      vi.advanceTimersByTime(86_400_000);
      await vi.waitUntil(async () => (await readdir(file("alice"))).length === 1, 20_000);
      expect(await readdir(file("alice"))).toEqual(["2026-10-24.jsonl"]);
    } finally {
      vi.useRealTimers();
    }
  });
});
