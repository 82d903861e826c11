import { expect, onTestFinished, test } from "vitest";
import { createForwarder, type EventTarget, RefusedError } from "../../../src/events/forwarders/forwarder.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { createCapturedLog } from "../../support/captured-log.ts";
import { envelopes } from "../../support/envelopes.ts";
import { eventually } from "../../support/eventually.ts";
import { openTestSpool, type TestSpool } from "../../support/spool.ts";
import { tempDir } from "../../support/temp-dir.ts";

/** A target that does what it is told to: `onSend` may throw, before or after it has taken some. */
function fakeTarget(onSend: (ids: readonly string[], taken: string[]) => void | Promise<void> = () => undefined) {
  const taken: string[] = [];
  const state = { connected: false, refuse: false, sending: 0 };
  const target: EventTarget = {
    maxBatch: 10,
    connect() {
      state.connected = !state.refuse;
      return state.refuse ? Promise.reject(new Error("nobody there")) : Promise.resolve();
    },
    async send(events) {
      expect(state.sending++).toBe(0);
      try {
        const ids = events.map(({ id }) => id);
        await onSend(ids, taken);
        taken.push(...ids);
      } finally {
        state.sending--;
      }
    },
    isConnected: () => state.connected,
    close: () => Promise.resolve(),
  };
  return { target, taken, state };
}

function start(spool: TestSpool, target: EventTarget) {
  const log = createCapturedLog();
  const options = { name: "a", reader: spool.a, target, clock: systemClock, log, random: () => 0, firstRetryMs: 1 };
  const forwarder = createForwarder(options);
  onTestFinished(() => forwarder.close(0));
  const idle = () =>
    eventually(() => {
      expect(forwarder.status().lag.events).toBe(0);
    });
  return { ...forwarder, log, idle };
}

function fill(spool: TestSpool, from: number, to: number): void {
  for (const event of envelopes(from, to)) spool.append(JSON.stringify(event));
}

const ids = (from: number, to: number): string[] => envelopes(from, to).map(({ id }) => id);

test("carries what is there and what comes, in order", async () => {
  const spool = await openTestSpool(tempDir());
  fill(spool, 1, 25);
  const { target, taken } = fakeTarget();
  const forwarder = start(spool, target);
  await forwarder.idle();
  expect(taken).toEqual(ids(1, 25));
  fill(spool, 26, 30);
  await forwarder.idle();
  expect(taken).toEqual(ids(1, 30));
  expect(forwarder.status()).toMatchObject({ sink: "a", connected: true, lastError: null, forwarded: 30, lost: {} });
  expect(forwarder.log.lines).toEqual([]);
});

test("repeats a batch whose answer is lost, and nothing behind it overtakes", async () => {
  const spool = await openTestSpool(tempDir());
  fill(spool, 1, 30);
  let troubles = 3;
  const { target, taken } = fakeTarget((batch, all) => {
    if (batch[0] !== "id-11" || troubles-- === 0) return;
    all.push(...batch.slice(0, 4));
    throw new Error("connection lost");
  });
  const forwarder = start(spool, target);
  await forwarder.idle();
  const part = ids(11, 14);
  expect(taken).toEqual([...ids(1, 10), ...part, ...part, ...part, ...ids(11, 30)]);
  expect([...new Set(taken)]).toEqual(ids(1, 30));
  expect(forwarder.status()).toMatchObject({ forwarded: 30, lastError: null });
  expect(forwarder.log.lines.map(({ facts }) => facts.event)).toEqual(["forwarder.failed", "forwarder.recovered"]);
});

test("says that it is not connected, keeps the events, and goes on once it is", async () => {
  const spool = await openTestSpool(tempDir());
  const { target, taken, state } = fakeTarget();
  state.refuse = true;
  const forwarder = start(spool, target);
  fill(spool, 1, 3);
  await eventually(() => {
    expect(forwarder.status()).toMatchObject({ connected: false, lastError: "nobody there", lastSuccessAt: null });
  });
  expect(forwarder.status().lag.events).toBe(3);
  expect(forwarder.status().lag.bytes).toBeGreaterThan(300);
  state.refuse = false;
  await forwarder.idle();
  expect(taken).toEqual(ids(1, 3));
});

test("drops the one event that is refused for good, and no other", async () => {
  const spool = await openTestSpool(tempDir());
  fill(spool, 1, 30);
  const { target, taken } = fakeTarget((batch) => {
    if (batch.includes("id-17")) throw new RefusedError("too large");
  });
  const forwarder = start(spool, target);
  await forwarder.idle();
  expect(taken).toEqual(ids(1, 30).filter((id) => id !== "id-17"));
  expect(forwarder.status()).toMatchObject({ forwarded: 29, lost: { refused: 1 }, lastError: null });
});

test("what is no envelope is counted as damaged", async () => {
  const spool = await openTestSpool(tempDir());
  for (const text of ["{", "[]", "null", '{"id":1}']) spool.append(text);
  fill(spool, 1, 2);
  const { target, taken } = fakeTarget();
  const forwarder = start(spool, target);
  await forwarder.idle();
  expect(taken).toEqual(ids(1, 2));
  expect(forwarder.status().lost).toEqual({ damaged: 4 });
});

test("sends what is left before it closes", async () => {
  const spool = await openTestSpool(tempDir());
  const { target, taken } = fakeTarget();
  const forwarder = start(spool, target);
  await eventually(() => {
    expect(forwarder.status().connected).toBe(true);
  });
  fill(spool, 1, 100);
  await forwarder.close(10_000);
  expect(taken).toEqual(ids(1, 100));
});

test("a target that fails or hangs doesn't hold up the end; the next start sends its events", async () => {
  const folder = tempDir();
  const first = await openTestSpool(folder);
  const hanging = fakeTarget(() => new Promise(() => undefined));
  const forwarder = start(first, hanging.target);
  fill(first, 1, 5);
  await forwarder.close(20);
  await first.close();
  const second = await openTestSpool(folder);
  const failing = fakeTarget(() => Promise.reject(new Error("no")));
  await start(second, failing.target).close(10_000);
  await second.close();
  const third = await openTestSpool(folder);
  const { target, taken } = fakeTarget();
  await start(third, target).idle();
  expect(taken).toEqual(ids(1, 5));
});
