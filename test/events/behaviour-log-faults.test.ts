import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { openAppendFile } from "../../src/lib/files/append-file.ts";
import { useBehaviourLog } from "../support/behaviour-log.ts";
import { chatFinished } from "../support/events.ts";

function createGate() {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return {
    opened,
    open: () => {
      open();
    },
  };
}

const { state, file, start, block, traces } = useBehaviourLog();

describe("behaviour log in trouble", () => {
  test("after a crash in the middle of a line the next one stands alone", async () => {
    await mkdir(file("alice"), { recursive: true });
    await writeFile(file("alice/2026-11-22.jsonl"), '{"trace_id":"whole"}\n{"trace_');
    const behaviour = start();
    behaviour.sink(chatFinished());
    await behaviour.close();
    const lines = (await readFile(file("alice/2026-11-22.jsonl"), "utf8")).split("\n");
    expect(lines.slice(0, 2)).toEqual(['{"trace_id":"whole"}', '{"trace_']);
    expect(JSON.parse(lines[2] ?? "")).toMatchObject({ trace_id: "trace-1" });
  });

  test("a file that an operator deleted is made anew", async () => {
    const behaviour = start();
    behaviour.sink(chatFinished({ traceId: "old" }));
    await behaviour.flush();
    await rm(file(""), { recursive: true });
    state.clock.advance(1000);
    behaviour.sink(chatFinished({ traceId: "new" }));
    await behaviour.flush();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["new"]);
  });

  test("D9: after logrotate has renamed a file, lines go into a new one, looked for once a second at most", async () => {
    const behaviour = start();
    const write = async (traceId: string): Promise<void> => {
      behaviour.sink(chatFinished({ traceId }));
      await behaviour.flush();
    };
    await write("before");
    await rename(file("alice/2026-11-22.jsonl"), file("alice/2026-11-22.jsonl.1"));
    await write("within the second");
    state.clock.advance(1000);
    await write("after");
    expect(await traces("alice/2026-11-22.jsonl.1")).toEqual(["before", "within the second"]);
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["after"]);
  });

  test("a file that cannot be written keeps its lines while others go on, and they follow when it can", async () => {
    const behaviour = start();
    await block("alice");
    behaviour.sink(chatFinished({ traceId: "a1" }));
    behaviour.sink(chatFinished({ user: "bob", traceId: "b1" }));
    await behaviour.flush();
    expect(await traces("bob/2026-11-22.jsonl")).toEqual(["b1"]);
    expect(behaviour.health()).toMatchObject({ alive: true, queued: 1, lastError: expect.stringMatching(/^E/) });

    await rm(file("alice"));
    behaviour.sink(chatFinished({ traceId: "a2" }));
    await behaviour.flush();
    expect(behaviour.health().queued).toBe(2);
    state.clock.advance(500);
    await behaviour.flush();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["a1", "a2"]);
    expect(behaviour.health()).toMatchObject({ queued: 0, lastError: null });
    expect(behaviour.health().dropped).toEqual({ queue_full: 0, io_error: 0, closed: 0 });
    expect(state.log.lines.filter(({ level }) => level === "error")).toHaveLength(1);
  });

  test("lines that come while a file is failing are kept in order", async () => {
    let broken = true;
    const behaviour = start({
      openFile: () => {
        const written: string[] = [];
        if (broken) return Promise.reject(new Error("no space left"));
        return Promise.resolve({
          size: 0,
          append: (bytes) => {
            written.push(bytes.toString());
            return writeFile(file("alice/out"), written.join(""));
          },
          sync: () => Promise.resolve(),
          isDeleted: () => Promise.resolve(false),
          close: () => Promise.resolve(),
        });
      },
    });
    for (const traceId of ["1", "2", "3"]) {
      behaviour.sink(chatFinished({ traceId }));
      await behaviour.flush();
      state.clock.advance(100_000);
    }
    expect(behaviour.health()).toMatchObject({ queued: 3, lastError: "no space left" });
    broken = false;
    await behaviour.flush();
    expect(await traces("alice/out")).toEqual(["1", "2", "3"]);
  });

  test("a failing file may use up a quarter of the queue; more of its lines are dropped, counted and reported", async () => {
    const behaviour = start({ maxQueued: 8 });
    await block("alice");
    behaviour.sink(chatFinished());
    await behaviour.flush();
    for (let i = 0; i < 9; i++) behaviour.sink(chatFinished());
    expect(behaviour.health()).toMatchObject({ queued: 2, dropped: { io_error: 8 } });
    for (let i = 0; i < 9; i++) behaviour.sink(chatFinished({ user: "bob", traceId: `${i}` }));
    expect(behaviour.health()).toMatchObject({ queued: 8, dropped: { io_error: 8, queue_full: 3 } });
    await behaviour.flush();
    expect(await traces("bob/2026-11-22.jsonl")).toEqual(["0", "1", "2", "3", "4", "5"]);
    for (let i = 0; i < 9; i++) behaviour.sink(chatFinished());
    await behaviour.flush();
    expect(state.log.lines.filter(({ level }) => level === "warn").map(({ facts }) => facts)).toEqual([
      { dropped_so_far: { queue_full: 3, io_error: 8, closed: 0 } },
    ]);
  });

  test("lines that come while a write is failing stand behind those it held", async () => {
    const gate = createGate();
    let tries = 0;
    const behaviour = start({
      openFile: async (name) => {
        tries += 1;
        if (tries > 1) return openAppendFile(name);
        await gate.opened;
        throw new Error("no space left");
      },
    });
    behaviour.sink(chatFinished({ traceId: "1" }));
    const failing = behaviour.flush();
    behaviour.sink(chatFinished({ traceId: "2" }));
    gate.open();
    await failing;
    // Closing tries once more, without waiting for the time of the next try.
    await behaviour.close();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["1", "2"]);
  });

  test("closing waits for the round that is being written", async () => {
    const gate = createGate();
    const behaviour = start({
      openFile: async (name) => {
        await gate.opened;
        return openAppendFile(name);
      },
    });
    behaviour.sink(chatFinished({ traceId: "1" }));
    void behaviour.flush();
    const closing = behaviour.close();
    gate.open();
    await closing;
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(["1"]);
    expect(behaviour.health()).toMatchObject({ queued: 0, dropped: { io_error: 0 } });
  });

  test("closing writes what waits, counts what it cannot write, and drops what comes later", async () => {
    const behaviour = start();
    await block("bob");
    for (let i = 0; i < 100; i++) behaviour.sink(chatFinished({ traceId: `${i}` }));
    behaviour.sink(chatFinished({ user: "bob" }));
    await behaviour.close();
    behaviour.sink(chatFinished());
    expect(await traces("alice/2026-11-22.jsonl")).toHaveLength(100);
    expect(behaviour.health()).toMatchObject({ alive: false, queued: 0 });
    expect(behaviour.health().dropped).toEqual({ queue_full: 0, io_error: 1, closed: 1 });
  });

  test("events that come while a round is being written are neither lost nor repeated", async () => {
    const behaviour = start({ flushMs: 1 });
    const sent: string[] = [];
    for (let i = 0; i < 500; i++) {
      sent.push(`${i}`);
      behaviour.sink(chatFinished({ traceId: `${i}` }));
      if (i % 20 === 0) await Promise.race([behaviour.flush(), Promise.resolve()]);
    }
    await behaviour.close();
    expect(await traces("alice/2026-11-22.jsonl")).toEqual(sent);
  });
});
