import { createServer, type AddressInfo, type Socket } from "node:net";
import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import { Attempt } from "../../src/providers/attempt.ts";
import type { UpstreamError } from "../../src/providers/upstream-error.ts";
import type { UpstreamTimeouts } from "../../src/providers/provider.ts";
import { priced, startBilledProxy, weight } from "../support/billed-proxy.ts";
import { closeAll, open } from "../support/failover.ts";
import { eventually } from "../support/eventually.ts";
import { createManualClock } from "../support/manual-clock.ts";

const event = (content: string, finish: string | null = null): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: finish }] })}\n\n`;

const long: UpstreamTimeouts = {
  connect: 5000,
  firstByte: 5000,
  firstEvent: 5000,
  idle: 5000,
  total: 60_000,
  stalledReader: 5000,
  heartbeat: 5000,
};

/** An answer of which the first event is read, and the provider's end of its connection. Time stands still. */
async function reading(timeouts: Partial<UpstreamTimeouts> = {}) {
  let connected: (socket: Socket) => void = () => undefined;
  const socketOf = new Promise<Socket>((resolve) => (connected = resolve));
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n${event("one")}`);
      connected(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
  });
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const provider = open("slow", { baseUrl, timeouts: { ...long, ...timeouts } });
  const question = {
    api: "chat",
    collects: false,
    choices: 1,
    canDropStreamOptions: () => false,
    bodyFor: () => Buffer.from("{}"),
  } as const;
  const clock = createManualClock(1000);
  const pass = provider.health.enter({ model: "m", user: "alice" }, clock.monotonic());
  if (pass === null) throw new Error("the provider's circuit is open");
  const attempt = new Attempt(provider, pass, question, clock);
  await attempt.open("m", clock.monotonic());
  const state = { events: 0, fault: undefined as UpstreamError | null | undefined };
  attempt.pipe({
    onEvent: () => state.events++,
    onBatch: () => undefined,
    onEnd: (fault) => {
      state.fault = fault;
    },
  });
  return { attempt, provider, clock, state, socket: await socketOf };
}

/** Turns of the event loop, in which a provider's bytes would arrive if they were read. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
}

const breaks: readonly (readonly [string, (socket: Socket) => void])[] = [
  ["is reset", (socket) => socket.resetAndDestroy()],
  ["ends too early", (socket) => socket.end()],
];

describe("M6: an answer whose reader is behind", () => {
  afterEach(closeAll);

  async function brokenOff({ attempt, provider, state }: Awaited<ReturnType<typeof reading>>) {
    await eventually(() => {
      expect(state.fault).toBeDefined();
    });
    expect(state.fault?.facts.kind).toMatch(/^(network|truncated|timeout)$/);
    return { byReader: attempt.brokenByReader, counted: provider.health.stats.failed > 0 };
  }

  it.each(breaks)(
    "and that %s meanwhile, or as soon as it is read on, is broken by its reader",
    async (_, breakOff) => {
      const run = await reading();
      run.attempt.pause();
      run.clock.advance(100);
      breakOff(run.socket);
      await turns();
      run.attempt.resume();
      expect(await brokenOff(run)).toEqual({ byReader: true, counted: false });
    },
  );

  it.each(breaks)("and that %s once it has been caught up with is broken by its provider", async (_, breakOff) => {
    const run = await reading();
    run.attempt.pause();
    run.clock.advance(100);
    run.attempt.resume();
    run.clock.advance(60);
    run.socket.write(event("two"));
    await eventually(() => {
      expect(run.state.events).toBe(2);
    });
    breakOff(run.socket);
    expect(await brokenOff(run)).toEqual({ byReader: false, counted: true });
  });

  it.each(breaks)("for a moment only, and that %s, is broken by its provider", async (_, breakOff) => {
    const run = await reading();
    run.attempt.pause();
    run.clock.advance(10);
    run.attempt.resume();
    breakOff(run.socket);
    expect(await brokenOff(run)).toEqual({ byReader: false, counted: true });
  });

  it("and of which nothing comes any more after it is broken by its reader", async () => {
    const run = await reading({ idle: 20 });
    run.attempt.pause();
    run.clock.advance(1000);
    await turns();
    run.attempt.resume();
    run.clock.advance(1000);
    expect(await brokenOff(run)).toEqual({ byReader: true, counted: false });
  });

  it("has as much time as any other: none passes while it is held back", async () => {
    const run = await reading({ idle: 20, total: 30 });
    run.attempt.pause();
    run.clock.advance(10_000);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(run.state.fault).toBeUndefined();
    run.socket.end(event("two", "stop"));
    run.attempt.resume();
    await eventually(() => {
      expect(run.state).toEqual({ events: 2, fault: null });
    });
  });

  it("has no more time than any other", async () => {
    const run = await reading({ total: 30 });
    run.attempt.pause();
    run.clock.advance(10_000);
    run.attempt.resume();
    run.clock.advance(31);
    await eventually(() => {
      expect(run.state.fault?.facts).toMatchObject({ kind: "timeout", stage: "total" });
    });
  });

  it("is read on where another takes its place", async () => {
    const run = await reading();
    run.attempt.pause();
    run.socket.end(event("two", "stop"));
    const ended = new Promise((resolve) => {
      run.attempt.pipe({ onEvent: () => undefined, onBatch: () => undefined, onEnd: resolve });
    });
    expect(await ended).toBeNull();
  });
});

describe("M6: a client that reads slowly", () => {
  const mega = "x".repeat(1 << 20);

  const body = { model: "flash", stream: true, messages: [{ role: "user", content: "hi" }] };

  /** Resolves once none of the events has gone out for a second, however busy the machine is: then all buffers are full. */
  async function heldBack(sends: readonly Promise<unknown>[]): Promise<void> {
    let out = 0;
    for (const send of sends) void send.then(() => out++);
    for (let before = -1, quiet = 0; quiet < 40; quiet = out === before ? quiet + 1 : 0) {
      before = out;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    expect(out).toBeLessThan(sends.length);
  }

  it("gets all of an answer, and pays for it, however long it takes", async () => {
    let late = 0;
    const start = Date.now();
    const clock: Clock = { now: () => start, monotonic: () => late };
    const billed = await startBilledProxy({ clock, config: "[timeouts]\ntotal_seconds = 0.2\n" });
    const opening = billed.ask("/chat/completions", body);
    const call = await billed.upstream.next();
    await call.delta("one");
    const client = await opening;
    await client.nextEvent();
    client.pause();
    const sends = Array.from({ length: 24 }, () => call.delta(mega));
    const sending = Promise.all(sends);
    // Longer than the deadline is looked at, so that it is while the answer is held back.
    await heldBack(sends);
    late = 5000;
    await new Promise((resolve) => setTimeout(resolve, 300));
    client.resume();
    await sending;
    await call.finish({ prompt_tokens: 20, completion_tokens: 30 });
    expect((await client.rest()).at(-1)?.data).toBe("[DONE]");
    expect(await billed.used()).toEqual(priced(20, 30));
  });

  it("pays for what it was given where its provider gives up meanwhile, and is told of that", async () => {
    const billed = await startBilledProxy();
    const opening = billed.ask("/chat/completions", body);
    const call = await billed.upstream.next();
    await call.delta("one");
    const client = await opening;
    await client.nextEvent();
    client.pause();
    const sending = Array.from({ length: 24 }, () => call.delta(mega).catch(() => undefined));
    await heldBack(sending);
    call.reset();
    await Promise.all(sending);
    client.resume();
    const events = await client.rest();
    expect(events.at(-1)?.json?.error?.code).toMatch(/^upstream_/);
    expect(await billed.logged()).toMatchObject({ outcome: "reader_stalled", requests: weight, estimated: true });
    const [provider] = billed.proxy.services.providerAdmin.list();
    expect(provider).toMatchObject({ failed: 0 });
  });
});
