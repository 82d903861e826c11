import {
  appendFileSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { eventually } from "../../support/eventually.ts";
import { createFaultyFiles } from "../../support/faulty-files.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { drain, openTestSpool, type TestSpool } from "../../support/spool.ts";
import { tempDir } from "../../support/temp-dir.ts";

const names = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, index) => `{"n":${from + index}}`);

function fill(spool: TestSpool, from: number, to: number): void {
  for (const text of names(from, to)) spool.append(text);
}

function files(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".journal"))
    .sort()
    .map((name) => join(folder, name));
}

/** About 20 records a file. */
const small = { segmentBytes: 512, maxBytes: 1 << 20 };

describe("the spool", () => {
  test("gives each reader every event once, in order, each at its own pace", async () => {
    const spool = await openTestSpool(tempDir(), small);
    fill(spool, 1, 100);
    expect(await drain(spool.a)).toEqual(names(1, 100));
    fill(spool, 101, 130);
    expect(await drain(spool.a)).toEqual(names(101, 130));
    expect(await drain(spool.reader("b"))).toEqual(names(1, 130));
    expect(await spool.a.read()).toEqual([]);
    expect(spool.a.lag()).toEqual({ events: 0, bytes: 0 });
    expect(spool.losses).toEqual([]);
  });

  test.runIf(process.platform === "linux")("closes the file that a reader is opening when it is closed", async () => {
    const folder = tempDir();
    const spool = await openTestSpool(folder);
    spool.append("one");
    const reading = spool.a.read();
    await spool.close();
    await reading.catch(() => undefined);
    const open = readdirSync("/proc/self/fd").map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return "";
      }
    });
    expect(open.filter((path) => path.startsWith(folder))).toEqual([]);
  });

  test("an event can be read as soon as it is written, and whoever waits is woken", async () => {
    const spool = await openTestSpool(tempDir());
    const woken = spool.a.more();
    spool.append("one");
    await woken;
    expect(await drain(spool.a)).toEqual(["one"]);
    const again = spool.a.more();
    spool.a.wake();
    await again;
  });

  test("goes on where a reader was, and repeats what was not acknowledged", async () => {
    const folder = tempDir();
    const first = await openTestSpool(folder, small);
    fill(first, 1, 50);
    const records = await first.a.read();
    first.a.acknowledge(10);
    expect(records.length).toBeGreaterThan(10);
    await first.close();
    const second = await openTestSpool(folder, small);
    second.append('{"n":51}');
    expect(await drain(second.a)).toEqual(names(11, 51));
    expect(await drain(second.reader("b"))).toEqual(names(1, 51));
  });

  test("removes a file once every reader's position behind it is saved", async () => {
    const folder = tempDir();
    const spool = await openTestSpool(folder, small);
    fill(spool, 1, 100);
    const all = files(folder).length;
    await drain(spool.a);
    await new Promise((resolve) => setTimeout(resolve, 0));
    expect(files(folder)).toHaveLength(all);
    await drain(spool.reader("b"));
    await eventually(() => {
      expect(files(folder)).toHaveLength(1);
    });
    await spool.close();
    const next = await openTestSpool(folder, small);
    expect(await drain(next.a)).toEqual([]);
  });

  test("a half-written record at the end is skipped, and its number used again", async () => {
    const folder = tempDir();
    const first = await openTestSpool(folder);
    fill(first, 1, 3);
    await first.close();
    const [file = ""] = files(folder);
    truncateSync(file, readFileSync(file).length - 4);
    const second = await openTestSpool(folder);
    second.append("again 3");
    expect(second.size().lastSeq).toBe(3);
    expect(await drain(second.a)).toEqual([...names(1, 2), "again 3"]);
    expect(second.losses).toEqual([]);
  });

  test("never uses a number again that a reader has seen, though the file has lost it", async () => {
    const folder = tempDir();
    const first = await openTestSpool(folder);
    fill(first, 1, 5);
    await drain(first.a);
    await first.close();
    const [file = ""] = files(folder);
    truncateSync(file, readFileSync(file).length - 40);
    const second = await openTestSpool(folder);
    second.append('{"n":6}');
    expect(await drain(second.a)).toEqual(names(6, 6));
  });

  test("counts damaged records as lost, and goes on behind them", async () => {
    const folder = tempDir();
    const first = await openTestSpool(folder, small);
    fill(first, 1, 60);
    await first.close();
    const [one = "", two = "", three = ""] = files(folder);
    const lines = readFileSync(one, "utf8").split("\n");
    writeFileSync(one, lines.map((line, index) => (index === 3 || index === 4 ? "x".repeat(20) : line)).join("\n"));
    unlinkSync(two);
    appendFileSync(three, "\0\0\0half a li");
    const second = await openTestSpool(folder, small);
    const read = await drain(second.a);
    const gone = 60 - read.length;
    expect(gone).toBeGreaterThan(10);
    expect(read.slice(0, 3)).toEqual(['{"n":1}', '{"n":2}', '{"n":5}']);
    expect(second.a.lost()).toEqual({ damaged: gone });
    expect(read.at(-1)).toBe('{"n":60}');
  });

  test("a file that disappears while it is needed costs its events, not the rest", async () => {
    const folder = tempDir();
    const spool = await openTestSpool(folder, small);
    fill(spool, 1, 60);
    unlinkSync(files(folder)[1] ?? "");
    const read = await drain(spool.a);
    expect(read.at(-1)).toBe('{"n":60}');
    expect(spool.a.lost()).toEqual({ damaged: 60 - read.length });
    expect(spool.a.lag().events).toBe(0);
  });

  test("at its limit drops the oldest, and counts what a reader has not read", async () => {
    const folder = tempDir();
    const spool = await openTestSpool(folder, { segmentBytes: 512, maxBytes: 2048 });
    fill(spool, 1, 60);
    expect(await drain(spool.a)).toEqual(names(1, 60));
    fill(spool, 61, 500);
    const bytes = files(folder).reduce((sum, file) => sum + readFileSync(file).length, 0);
    expect(bytes).toBeLessThanOrEqual(2048);
    expect(spool.size().bytes).toBe(bytes);
    const [a, b] = [await drain(spool.a), await drain(spool.reader("b"))];
    expect(a).toEqual(b);
    expect(a.at(-1)).toBe('{"n":500}');
    expect(spool.a.lost()).toEqual({ spool_full: 440 - a.length });
    expect(spool.reader("b").lost()).toEqual({ spool_full: 500 - b.length });
    expect(spool.a.lag()).toEqual({ events: 0, bytes: 0 });
  });

  test("what is on its way when its file is dropped counts as delivered", async () => {
    const spool = await openTestSpool(tempDir(), { segmentBytes: 512, maxBytes: 2048, readers: ["a"] });
    fill(spool, 1, 5);
    const records = await spool.a.read();
    fill(spool, 6, 300);
    // Lost events are not waiting any more.
    expect(spool.a.lag().events).toBe(300 - (spool.a.lost().spool_full ?? 0));
    spool.a.acknowledge(records.at(-1)?.seq ?? 0);
    const rest = await drain(spool.a);
    expect(spool.a.lost()).toEqual({ spool_full: 300 - 5 - rest.length });
    expect(spool.a.lag().events).toBe(0);
  });

  test("what was on its way when a kill came is counted at the next start, and what was counted before is not", async () => {
    const folder = tempDir();
    const options = { segmentBytes: 512, maxBytes: 2048, readers: ["a"] };
    const spool = await openTestSpool(folder, options);
    fill(spool, 1, 5);
    const onItsWay = await spool.a.read();
    fill(spool, 6, 300);
    const counted = spool.a.lost().spool_full ?? 0;
    await eventually(() => {
      expect(readFileSync(join(folder, "a.position"), "utf8")).toContain(`"lost":${counted}`);
    });
    // The kill: what the process knew is gone.
    const next = await openTestSpool(folder, options);
    expect(next.losses).toEqual([`a spool_full ${onItsWay.length}`]);
    expect(next.a.lag().events).toBe(300 - counted - onItsWay.length);
    expect(await drain(next.a)).toHaveLength(300 - counted - onItsWay.length);
    // It removes files, which may be gone once the next one has listed them.
    await next.close();
    const third = await openTestSpool(folder, options);
    expect(third.losses).toEqual([]);
  });

  test.each(["ENOSPC", "EIO", "short"] as const)("a write that fails with %s costs its event alone", async (fault) => {
    const ops = createFaultyFiles();
    const spool = await openTestSpool(tempDir(), { ops });
    fill(spool, 1, 3);
    ops.fail("write", fault, 1, 2);
    fill(spool, 4, 8);
    expect(await drain(spool.a)).toEqual([...names(1, 3), ...names(6, 8)]);
    expect(spool.losses).toEqual(["a disk 1", "b disk 1", "a disk 1", "b disk 1"]);
    expect(spool.log.lines).toHaveLength(1);
  });

  test("half a record that can't be cut off costs nothing but its event", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const spool = await openTestSpool(folder, { ops });
    fill(spool, 1, 3);
    ops.fail("write", "short");
    ops.fail("truncate", "EIO");
    fill(spool, 4, 8);
    expect(await drain(spool.a)).toEqual([...names(1, 3), ...names(5, 8)]);
    await spool.close();
    const again = await openTestSpool(folder);
    expect(await drain(again.reader("b"))).toEqual([...names(1, 3), ...names(5, 8)]);
    expect(again.losses).toEqual([]);
  });

  test("no new file, no sync, no removal: counted, logged, and well again afterwards", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const spool = await openTestSpool(folder, { ...small, ops });
    ops.fail("open", "ENOSPC", 1, 2);
    ops.fail("sync", "EIO", 1, 100);
    ops.fail("unlink", "EIO", 1, 3);
    fill(spool, 1, 100);
    expect(await drain(spool.a)).toEqual(names(3, 100));
    expect(await drain(spool.reader("b"))).toEqual(names(3, 100));
    expect(spool.a.lost()).toEqual({ disk: 2 });
  });

  test("a position that can't be saved is saved later", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const spool = await openTestSpool(folder, { ops });
    fill(spool, 1, 3);
    ops.fail("rename", "EIO");
    await drain(spool.a);
    await eventually(() => {
      expect(readFileSync(join(folder, "a.position"), "utf8")).toBe('{"seq":3}\n');
    });
    expect(spool.log.lines.map(({ message }) => message)).toEqual(["the position of a reader could not be saved"]);
  });

  test.each(["", "{}", '{"seq":-1}', '{"seq":"7"}', "\0\0"])(
    "a broken position %j starts at the oldest",
    async (text) => {
      const folder = tempDir();
      const first = await openTestSpool(folder);
      fill(first, 1, 3);
      await first.close();
      writeFileSync(join(folder, "a.position"), text);
      const second = await openTestSpool(folder);
      expect(await drain(second.a)).toEqual(names(1, 3));
    },
  );

  test("an event that is too long is counted, and so is one behind the end", async () => {
    const spool = await openTestSpool(tempDir());
    spool.append("x".repeat(70_000));
    spool.append("short");
    expect(await drain(spool.a)).toEqual(["short"]);
    await spool.close();
    spool.append("late");
    expect(spool.a.lost()).toEqual({ too_large: 1, closed: 1 });
  });
});

describe("the spool on a slow disk", () => {
  /** A spool after three writes of 50 ms; from now on none may be waited for, until the disk has been quick for 30 s. */
  async function openSlow(options: Parameters<typeof openTestSpool>[1] = {}, folder = tempDir()) {
    const [ops, clock] = [createFaultyFiles(), createManualClock()];
    const spool = await openTestSpool(folder, { ops, clock, ...options });
    fill(spool, 1, 2);
    ops.onWriteSync = () => {
      clock.advance(50);
    };
    fill(spool, 3, 4);
    expect(spool.log.lines).toEqual([]);
    fill(spool, 5, 5);
    ops.onWriteSync = () => {
      throw new Error("somebody waits for the disk");
    };
    let go: () => void = () => undefined;
    ops.hold = new Promise<void>((resolve) => (go = resolve));
    return { spool, ops, clock, folder, go };
  }

  test("keeps nobody waiting: events wait in memory, and are read in order once they are written", async () => {
    const { spool, go } = await openSlow(small);
    fill(spool, 6, 200);
    expect(spool.size()).toMatchObject({ lastSeq: 5, waitingBytes: names(6, 200).join("").length });
    expect(spool.log.lines.map(({ facts }) => facts.event)).toEqual(["spool.slow"]);
    const woken = drain(spool.a).then(() => spool.a.more());
    go();
    await woken;
    await eventually(() => {
      expect(spool.size()).toMatchObject({ lastSeq: 200, waitingBytes: 0 });
    });
    expect(await drain(spool.reader("b"))).toEqual(names(1, 200));
    expect(spool.losses).toEqual([]);
  });

  test("what waits is bounded: more is lost, and counted", async () => {
    const { spool, go } = await openSlow({ maxBytes: 64 << 20, segmentBytes: 1 << 20 });
    const long = "x".repeat(60_000);
    for (let n = 0; n < 300; n++) spool.append(long);
    const lost = 300 - Math.floor((16 << 20) / long.length);
    expect(spool.size().waitingBytes).toBeLessThanOrEqual(16 << 20);
    expect(spool.a.lost()).toEqual({ disk: lost });
    go();
    await spool.close();
    expect(spool.size()).toMatchObject({ lastSeq: 5 + 300 - lost, waitingBytes: 0 });
    expect(spool.log.lines.map(({ message }) => message)).toContain(
      "the spool's disk is too slow: events for outside systems are lost",
    );
  });

  test("is written while the caller waits again, once it has been quick for a while", async () => {
    const { spool, ops, clock, go } = await openSlow();
    fill(spool, 6, 8);
    go();
    await eventually(() => {
      expect(spool.size().lastSeq).toBe(8);
    });
    clock.advance(30_000);
    ops.onWriteSync = () => undefined;
    ops.hold = undefined;
    fill(spool, 9, 11);
    expect(await drain(spool.a)).toEqual(names(1, 11));
    expect(spool.size().waitingBytes).toBe(0);
  });

  test.each(["ENOSPC", "short"] as const)(
    "a write that fails with %s costs the events of that write",
    async (fault) => {
      const { spool, ops, folder, go } = await openSlow();
      ops.fail("write", fault);
      fill(spool, 6, 8);
      go();
      await eventually(() => {
        expect(spool.a.lost()).toEqual({ disk: 3 });
      });
      fill(spool, 9, 11);
      await spool.close();
      const again = await openTestSpool(folder);
      expect(await drain(again.a)).toEqual([...names(1, 5), ...names(9, 11)]);
      expect(again.losses).toEqual([]);
    },
  );

  test("what is half written and can't be cut off is counted, and no number is used twice", async () => {
    const { spool, ops, folder, go } = await openSlow();
    ops.fail("write", "short");
    ops.fail("truncate", "EIO");
    fill(spool, 6, 50);
    go();
    await eventually(() => {
      expect(spool.size().lastSeq).toBe(50);
    });
    fill(spool, 51, 60);
    await eventually(() => {
      expect(spool.size().lastSeq).toBe(60);
    });
    expect(await drain(spool.a)).toEqual([...names(1, 5), ...names(51, 60)]);
    expect(spool.a.lost()).toEqual({ damaged: 45 });
    await spool.close();
    // Whole records that were written after all are there for who has not read them.
    const again = await openTestSpool(folder);
    const read = await drain(again.reader("b"));
    expect(read.slice(0, 6)).toEqual(names(1, 6));
    expect(read.slice(-10)).toEqual(names(51, 60));
    expect(read.length + (again.reader("b").lost().damaged ?? 0)).toBe(60);
  });
});
