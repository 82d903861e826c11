import { execFileSync } from "node:child_process";
import { appendFile, mkdir, rm, symlink, unlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { createBehaviourReader, type BehaviourQuery } from "../../src/events/log-files/log-pages.ts";
import { useBehaviourLog } from "../support/behaviour-log.ts";
import { chatFinished, loginFailed } from "../support/events.ts";
import { tempDir } from "../support/temp-dir.ts";

const startMs = Date.UTC(2026, 10, 22, 10);
const line = (ms: number, n: number, event = "chat.finished", more = ""): string =>
  `{"ts":"${new Date(ms).toISOString()}","event":"${event}","n":${n}${more}}\n`;
const lines = (count: number, first = 0, stepMs = 1000): string =>
  Array.from({ length: count }, (_, index) => line(startMs + (first + index) * stepMs, first + index)).join("");

/** A reader over files of alice. */
async function useFiles(files: Readonly<Record<string, string>>, maxScanBytes?: number) {
  const logsDir = tempDir();
  const file = (name: string) => path.join(logsDir, "users", "alice", name);
  await mkdir(file(""), { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(file(name), text);
  const reader = createBehaviourReader({ logsDir, ...(maxScanBytes === undefined ? {} : { maxScanBytes }) });

  async function page(query: Partial<BehaviourQuery> = {}) {
    const { events, nextCursor } = await reader.page({ user: "alice", limit: 10, ...query });
    return { numbers: events.map((event) => event.n), nextCursor };
  }

  /** All pages one after the other. */
  async function pages(query: Partial<BehaviourQuery> = {}): Promise<unknown[][]> {
    const found: unknown[][] = [];
    let cursor: string | undefined;
    do {
      const { numbers, nextCursor } = await page({ ...query, cursor });
      found.push(numbers);
      cursor = nextCursor ?? undefined;
    } while (cursor !== undefined && found.length < 1000);
    return found;
  }

  return { reader, file, page, pages };
}

const down = (from: number, to: number): number[] => Array.from({ length: from - to + 1 }, (_, index) => from - index);

describe("what the behaviour log has written", () => {
  const { state, start } = useBehaviourLog();

  it("is read back as it was, the newest first, filtered by type", async () => {
    const behaviour = start();
    behaviour.sink(loginFailed({ at: startMs, user: "alice" }));
    behaviour.sink(chatFinished({ at: startMs + 1, traceId: "first" }));
    behaviour.sink(chatFinished({ at: startMs + 2, traceId: "second", model: 'é"\n{模型}' }));
    behaviour.sink(loginFailed({ user: "mallory", known: false }));
    await behaviour.flush();
    const reader = createBehaviourReader({ logsDir: state.root });
    const all = await reader.page({ user: "alice", limit: 10 });
    expect(all.events.map(({ event }) => event)).toEqual(["chat.finished", "chat.finished", "login.failed"]);
    expect(all.events[0]).toMatchObject({ ts: "2026-11-22T10:00:00.002Z", trace_id: "second", model: 'é"\n{模型}' });
    expect(all.nextCursor).toBeNull();
    const failed = await reader.page({ user: "alice", type: "login.failed", limit: 10 });
    expect(failed.events).toEqual([all.events[2]]);
    expect((await reader.page({ user: "_unknown", limit: 10 })).events).toMatchObject([{ user: "mallory" }]);
  });
});

describe("the behaviour reader", () => {
  it("pages through days and parts without a gap or a repeat", async () => {
    const { pages } = await useFiles({
      "2026-11-20.jsonl": lines(3, 0),
      "2026-11-22.jsonl": lines(4, 3),
      "2026-11-22.2.jsonl": lines(5, 10),
      "2026-11-22.10.jsonl": lines(2, 15),
      "2026-11-22.1.jsonl": lines(3, 7),
      "notes.txt": line(startMs, 99),
      "2026-11-22.01.jsonl": line(startMs, 99),
    });
    for (const limit of [1, 2, 3, 5, 16, 17, 100]) {
      const found = await pages({ limit });
      expect(found.flat()).toEqual(down(16, 0));
      expect(found.every((numbers) => numbers.length <= limit)).toBe(true);
    }
  });

  it("reads lines across its blocks whole, however they are cut", async () => {
    const padded = Array.from({ length: 400 }, (_, index) =>
      line(startMs + index, index, "chat.finished", `,"pad":"${"é".repeat((index * 37) % 1500)}"`),
    );
    const { pages } = await useFiles({ "2026-11-22.jsonl": padded.join("") });
    expect((await pages({ limit: 7 })).flat()).toEqual(down(399, 0));
  });

  it("does not mind lines that come while somebody pages", async () => {
    const { page, file } = await useFiles({ "2026-11-22.jsonl": lines(10) });
    const { numbers, nextCursor } = await page({ limit: 4 });
    await appendFile(file("2026-11-22.jsonl"), lines(5, 10));
    await writeFile(file("2026-11-23.jsonl"), lines(5, 20));
    const next = await page({ limit: 100, cursor: nextCursor ?? undefined });
    expect([...numbers, ...next.numbers]).toEqual(down(9, 0));
  });

  it("goes on with older files where the file of a cursor has been removed", async () => {
    const { page, file } = await useFiles({ "2026-11-21.jsonl": lines(3), "2026-11-22.jsonl": lines(3, 3) });
    const { nextCursor } = await page({ limit: 1 });
    await unlink(file("2026-11-22.jsonl"));
    expect((await page({ cursor: nextCursor ?? undefined })).numbers).toEqual([2, 1, 0]);
  });

  it("passes over torn lines, an unfinished last one, and pieces that are no lines at all", async () => {
    const torn = [line(startMs, 0).slice(0, 40) + "\n", "\n", "null\n", "[1]\n", '{"ts":3', "\n", "x".repeat(700_000)];
    const text = `\n${torn.join("")}\n${lines(2, 1)}${torn.join("")}\n${"y".repeat(131_071)}\n${line(startMs, 3)}`;
    const { pages } = await useFiles({ "2026-11-22.jsonl": text + line(startMs, 4).slice(0, -1) });
    expect((await pages({ limit: 1 })).flat()).toEqual([3, 2, 1]);
    expect((await pages({ limit: 9, type: "chat.finished", from: startMs - 1, to: startMs + 9999 })).flat()).toEqual([
      3, 2, 1,
    ]);
  });

  it("finds what happened between two moments, wherever in a file it is", async () => {
    const { pages } = await useFiles({
      "2026-11-22.jsonl": lines(20_000, 0),
      "2026-11-22.1.jsonl": lines(20_000, 20_000),
    });
    for (const [from, to] of [
      [0, 5],
      [100, 300],
      [19_995, 20_005],
      [29_999, 30_001],
      [39_990, 50_000],
    ] as const) {
      const found = await pages({ limit: 50, from: startMs + from * 1000, to: startMs + to * 1000 });
      expect(found.flat()).toEqual(down(Math.min(to, 40_000) - 1, from));
    }
    expect(await pages({ from: startMs + 500, to: startMs + 600 })).toEqual([[]]);
  });

  it("looks for a moment in the files of all days that it may be in somewhere on Earth", async () => {
    const { page } = await useFiles({
      "2026-11-21.jsonl": line(Date.UTC(2026, 10, 22, 11, 59), 1),
      "2026-11-22.jsonl": line(Date.UTC(2026, 10, 22, 12), 2),
      "2026-11-23.jsonl": line(Date.UTC(2026, 10, 22, 13), 3),
    });
    const noon = Date.UTC(2026, 10, 22, 12);
    const numbersOf = async (from: number, to: number) => (await page({ from, to })).numbers;
    expect(await numbersOf(noon - 60_000, noon)).toEqual([1]);
    expect(await numbersOf(noon, noon + 1)).toEqual([2]);
    expect(await numbersOf(noon + 1, noon + 3_600_001)).toEqual([3]);
  });

  it("finds by time what was written a little out of order", async () => {
    const shuffled = Array.from({ length: 5000 }, (_, index) => {
      const late = index % 7 === 0 ? 55_000 : 0;
      return line(startMs + index * 1000 - late, index);
    });
    const { pages } = await useFiles({ "2026-11-22.jsonl": shuffled.join("") });
    const from = startMs + 2000 * 1000;
    const to = startMs + 3000 * 1000;
    const expected = shuffled
      .map((text) => JSON.parse(text) as { ts: string; n: number })
      .filter(({ ts }) => Date.parse(ts) >= from && Date.parse(ts) < to)
      .map(({ n }) => n);
    expect((await pages({ limit: 100, from, to })).flat()).toEqual(expected.reverse());
  });

  it("reads no more than its bound for one page, and says where to go on", async () => {
    const rare = line(startMs, -1, "login.failed");
    const { pages } = await useFiles({ "2026-11-22.jsonl": rare + lines(20_000) }, 256 << 10);
    const found = await pages({ type: "login.failed" });
    expect(found.length).toBeGreaterThan(3);
    expect(found.flat()).toEqual([-1]);
  });

  it("has nothing of a user without a log", async () => {
    const { reader } = await useFiles({});
    expect(await reader.page({ user: "bob", limit: 5 })).toEqual({ events: [], nextCursor: null });
    expect(await reader.page({ user: "alice", limit: 5 })).toEqual({ events: [], nextCursor: null });
  });

  it("passes over a folder and a pipe with the name of a log, and waits for nobody to write to it", async () => {
    const { file, page } = await useFiles({ "2026-11-20.jsonl": lines(2) });
    await mkdir(file("2026-11-22.jsonl"));
    execFileSync("mkfifo", [file("2026-11-21.jsonl")]);
    expect((await page()).numbers).toEqual([1, 0]);
  });

  it("is storage_unavailable where it can't be read", async () => {
    const { file, page } = await useFiles({ "2026-11-22.jsonl": lines(2) });
    await rm(file(""), { recursive: true });
    await writeFile(file("").replace(/\/$/, ""), "no folder");
    await expect(page()).rejects.toMatchObject({ code: "storage_unavailable", status: 503 });
  });

  it("follows no symlink to a file elsewhere", async () => {
    const { page, file } = await useFiles({ elsewhere: lines(3) });
    await symlink(file("elsewhere"), file("2026-11-22.jsonl"));
    expect((await page()).numbers).toEqual([]);
  });

  it.each(["../alice", "", "Alice", "a/b", "alice\0", "_other"])("refuses the user %j", async (user) => {
    const { page } = await useFiles({});
    await expect(page({ user })).rejects.toMatchObject({ code: "invalid_request" });
  });

  it("refuses a cursor that is none, and one of another user's log", async () => {
    const { page, reader } = await useFiles({ "2026-11-22.jsonl": lines(3) });
    const { nextCursor } = await page({ limit: 1 });
    await expect(reader.page({ user: "bob", limit: 1, cursor: nextCursor ?? "" })).rejects.toMatchObject({
      code: "invalid_request",
      extras: { param: "cursor" },
    });
    const forged = ["", "x", "\0", "alice 2026-11-22 0 -1", "alice ../../x 0 1", "alice 2026-11-22 0 1e9", "🙂"];
    for (const text of forged) {
      await expect(page({ cursor: text })).rejects.toMatchObject({ code: "invalid_request" });
      const cursor = Buffer.from(text).toString("base64url");
      await expect(page({ cursor })).rejects.toMatchObject({ code: "invalid_request" });
    }
    const beyond = Buffer.from("alice 2026-11-22 0 999999").toString("base64url");
    expect((await page({ cursor: beyond })).numbers).toEqual([2, 1, 0]);
  });
});
