import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { gunzipSync, gzipSync } from "node:zlib";
import { expect, test, vi } from "vitest";
import { createLogCompressor } from "../../src/events/log-files/log-compressor.ts";
import { createBehaviourReader } from "../../src/events/log-files/log-pages.ts";
import { removeBeyondSize, removeOldFiles } from "../../src/events/log-files/behaviour-files.ts";
import { useBehaviourLog } from "../support/behaviour-log.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { chatFinished } from "../support/events.ts";

const { state, file, start, traces } = useBehaviourLog();
const at = Date.UTC(2026, 10, 22, 10);
const dayMs = 86_400_000;

const line = (time: number, n: number): string =>
  `{"ts":"${new Date(time).toISOString()}","event":"chat.finished","trace_id":"${n}"}\n`;
const text = (day: number, lines: number): string =>
  Array.from({ length: lines }, (_, n) => line(at - day * dayMs + n, n)).join("");

async function put(name: string, content: string | Buffer): Promise<void> {
  await mkdir(file("alice"), { recursive: true });
  await writeFile(file(`alice/${name}`), content);
}

const names = () => readdir(file("alice"));
const alone = <T>(action: () => Promise<T>) => action();
const compressing = { compressAfterDays: 1, compressor: createLogCompressor() };

test("logs of past days are compressed, and read as before, also from a cursor given out before", async () => {
  for (const day of [0, 1, 2]) await put(`2026-11-2${2 - day}.jsonl`, text(day, 3000));
  await put("2026-11-21.1.jsonl", text(1, 10));
  const reader = createBehaviourReader({ logsDir: state.root });
  const query = { user: "alice", limit: 1000 };
  const first = await reader.page({ ...query, to: at - dayMs + 2000 });
  const before = await reader.page({ ...query, cursor: first.nextCursor ?? "" });
  const old = await reader.page({ ...query, to: at - 2 * dayMs + 2500, from: at - 2 * dayMs + 1000 });

  await start(compressing).close();
  expect(await names()).toEqual([
    "2026-11-20.jsonl.gz",
    "2026-11-21.1.jsonl.gz",
    "2026-11-21.jsonl.gz",
    "2026-11-22.jsonl",
  ]);
  expect(gunzipSync(await readFile(file("alice/2026-11-20.jsonl.gz"))).toString()).toBe(text(2, 3000));
  expect((await stat(file("alice/2026-11-20.jsonl.gz"))).mode & 0o777).toBe(
    (await stat(file("alice/2026-11-22.jsonl"))).mode & 0o777,
  );
  expect(await reader.page({ ...query, to: at - dayMs + 2000 })).toEqual(first);
  expect(await reader.page({ ...query, cursor: first.nextCursor ?? "" })).toEqual(before);
  expect(await reader.page({ ...query, to: at - 2 * dayMs + 2500, from: at - 2 * dayMs + 1000 })).toEqual(old);
  expect(old.events).toHaveLength(1000);
});

test("nothing is compressed unless the config says so, nor days that are not old enough", async () => {
  await put("2026-11-21.jsonl", text(1, 1));
  await put("2026-11-20.jsonl", text(2, 1));
  await start().close();
  await start({ ...compressing, compressAfterDays: 0 }).close();
  expect(await names()).toEqual(["2026-11-20.jsonl", "2026-11-21.jsonl"]);
  await start({ ...compressing, compressAfterDays: 2 }).close();
  expect(await names()).toEqual(["2026-11-20.jsonl.gz", "2026-11-21.jsonl"]);
});

test("whatever a crash has left, no line is lost or read twice", async () => {
  // It was killed while it compressed one file, and before it removed another.
  await put("2026-11-20.jsonl", text(2, 3));
  await put("2026-11-20.jsonl.gz.tmp", "half of it");
  await put("2026-11-21.jsonl", text(1, 2));
  await put("2026-11-21.jsonl.gz", gzipSync(text(1, 2)));
  await put("2026-11-19.jsonl.gz.tmp", "nothing else of it is there");
  const reader = createBehaviourReader({ logsDir: state.root });
  const all = await reader.page({ user: "alice", limit: 100 });
  expect(all.events.map((event) => event.trace_id)).toEqual(["1", "0", "2", "1", "0"]);
  await start(compressing).close();
  expect(await names()).toEqual(["2026-11-20.jsonl.gz", "2026-11-21.jsonl.gz"]);
  expect(await reader.page({ user: "alice", limit: 100 })).toEqual(all);
});

test("lines of a day that is compressed already go into its next part", async () => {
  await put("2026-11-21.jsonl", text(1, 2));
  const behaviour = start(compressing);
  await vi.waitUntil(async () => (await names()).includes("2026-11-21.jsonl.gz"), 20_000);
  behaviour.sink(chatFinished({ at: at - dayMs, traceId: "late" }));
  await behaviour.close();
  expect(await traces("alice/2026-11-21.1.jsonl")).toEqual(["late"]);
});

test("lines that are written while their day is being compressed are kept, whenever they come", async () => {
  await put("2026-11-21.jsonl", text(1, 2000));
  const behaviour = start({ ...compressing, flushMs: 1 });
  const sent: string[] = [];
  while (!(await names()).includes("2026-11-21.jsonl.gz")) {
    sent.push(`late ${sent.length}`);
    behaviour.sink(chatFinished({ at: at - dayMs, traceId: sent.at(-1) ?? "" }));
    await behaviour.flush();
    // As the sweep of the next day would.
    await compressing.compressor.compress(file(""), "2026-11-22", alone).catch(() => undefined);
    if (sent.length > 500) break;
  }
  await behaviour.close();
  const reader = createBehaviourReader({ logsDir: state.root });
  const { events } = await reader.page({ user: "alice", limit: 1000 });
  const late = events.map((event) => String(event.trace_id)).filter((id) => id.startsWith("late"));
  expect(late.reverse()).toEqual(sent);
});

test("gzip that somebody else has written is read too", async () => {
  await put("2026-11-20.jsonl.gz", gzipSync(text(2, 3)));
  const { events } = await createBehaviourReader({ logsDir: state.root }).page({ user: "alice", limit: 2 });
  expect(events.map((event) => event.trace_id)).toEqual(["2", "1"]);
  expect(await names()).toEqual(["2026-11-20.jsonl.gz"]);
});

test("a small file that would become a large one is skipped, named in the log, and leaves nothing behind", async () => {
  await put("2026-11-19.jsonl", text(3, 2));
  await put("2026-11-20.jsonl.gz", gzipSync(Buffer.alloc(64 << 20)));
  const log = createCapturedLog();
  const reader = createBehaviourReader({ logsDir: state.root, log, maxExpandedBytes: 1 << 20 });
  const { events } = await reader.page({ user: "alice", limit: 5 });
  expect(events.map((event) => event.trace_id)).toEqual(["1", "0"]);
  expect(log.lines).toMatchObject([{ facts: { event: "logs.skipped", file: file("alice/2026-11-20.jsonl.gz") } }]);
  expect(await names()).toEqual(["2026-11-19.jsonl", "2026-11-20.jsonl.gz"]);
});

test("retention by age and by size counts compressed files", async () => {
  await put("2026-11-18.jsonl.gz", "1234");
  await put("2026-11-18.1.jsonl.gz.tmp", "1234");
  await put("2026-11-19.jsonl.gz", "1234");
  await put("2026-11-20.jsonl.gz", "1234");
  await put("2026-11-21.jsonl", "1234");
  expect(await removeOldFiles(file(""), "2026-11-19")).toBe(2);
  expect(await removeBeyondSize(file(""), 8, "2026-11-22")).toBe(1);
  expect(await names()).toEqual(["2026-11-20.jsonl.gz", "2026-11-21.jsonl"]);
});

test("closing ends it soon, and leaves the file as it was", async () => {
  await put("2026-11-20.jsonl", text(2, 20_000));
  const compressor = createLogCompressor();
  const done = compressor.compress(file(""), "2026-11-22", alone);
  await vi.waitUntil(async () => (await names()).length > 1, { timeout: 20_000, interval: 1 });
  compressor.close();
  expect(await done).toBe(0);
  expect(await names()).toEqual(["2026-11-20.jsonl"]);
});

test("a file that can't be written is an error, and changes nothing", async () => {
  await put("2026-11-20.jsonl", text(2, 10));
  await mkdir(file("alice/2026-11-20.jsonl.gz.tmp"));
  await expect(createLogCompressor().compress(file(""), "2026-11-22", alone)).rejects.toThrow(/EISDIR/);
  expect(await names()).toEqual(["2026-11-20.jsonl", "2026-11-20.jsonl.gz.tmp"]);
});
