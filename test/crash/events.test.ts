import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.ts";
import { chatFinished } from "../support/events.ts";
import { describeWithKafka, type KafkaServer, startKafkaServer, startMs } from "../support/kafka-server.ts";
import { describeWithRedis, type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { compiledServer } from "../support/server-process.ts";
import { tempDir } from "../support/temp-dir.ts";

const total = 100_000;
const users = 50;
const name = "events";
const sinks = ["redis", "kafka"] as const;
/** How long to wait for what takes a second or two on a quiet machine, in ms. */
const waitMs = 120_000;

const config = `
[events.redis]
stream = "${name}"
max_length = 1000000
[events.kafka]
topic = "${name}"
`;

/**
 * Emits events number \`from\` to \`total\` through the proxy's own bus, as fast as it can, but none above the latest
 * number on its standard input; notes each in a file once \`emit\` has returned. When all have been forwarded it prints
 * the metrics and ends.
 *
 * @param code what compiledServer returned
 */
const emitter = (code: string) => `
import { appendFileSync, openSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { setImmediate, setTimeout } from "node:timers/promises";
import { parseConfig } from "${code}/config/load.js";
import { writeMetrics } from "${code}/events/exposition.js";
import { forwarderFamilies } from "${code}/events/forwarders/forwarder-metrics.js";
import { createLogger } from "${code}/events/logger.js";
import { openEvents } from "${code}/events/open-events.js";
import { closeAll } from "${code}/lib/close-all.js";
import { systemClock } from "${code}/lib/clock.js";
const { config, logsDir, logFile, noteFile, from, total, users, event } = JSON.parse(process.argv[2]);
const closers = [];
const events = await openEvents({
  config: parseConfig(config, "config"),
  env: process.env,
  logsDir,
  node: "node-1",
  clock: systemClock,
  dayOf: (at) => new Date(at).toISOString().slice(0, 10),
  log: createLogger({ level: "warn", destination: { write: (line) => appendFileSync(logFile, line) } }),
  onOpen: (close) => closers.push(close),
});
let allowed = 0;
createInterface({ input: process.stdin }).on("line", (line) => (allowed = Number(line)));
const note = openSync(noteFile, "r+");
for (let n = from; n <= total; n++) {
  while (n > allowed) await setTimeout(5);
  events.bus.emit({ ...event, at: Date.now(), traceId: String(n), user: "user-" + (n % users), inputTokens: n });
  writeSync(note, String(n).padStart(9, "0"), 0);
  if (n % 25 === 0) await setImmediate();
}
while (events.forwarders().some(({ lag }) => lag.events > 0)) await setTimeout(20);
process.stdout.write(writeMetrics(forwarderFamilies(events), "text"));
await closeAll(closers);
process.stdin.destroy();
`;

/** A sink's position in the spool, by its name. */
type Positions = ReadonlyMap<string, number>;

/** Numbers of events that one process has emitted; it was killed while it may have emitted one more. */
interface Emitted {
  readonly from: number;
  readonly to: number;
}

/** The emitter, and the next one after each kill. */
interface Emitter {
  /** Resolves once this number has been emitted; more follow it. */
  reach(number: number): Promise<void>;
  /** kill -9. The next process goes on behind the number of which it is not known whether it was emitted. */
  crash(): Promise<void>;
  /** Emits the rest, and returns the metrics of the last process once all is forwarded. */
  finish(): Promise<string>;
  /** By all processes so far. */
  emitted(): readonly Emitted[];
  /** What the last process began with. */
  positions(): Positions;
  /** What all processes have logged: warnings and errors. */
  logged(): readonly { readonly level: string; readonly event?: string }[];
}

function startEmitter(env: Readonly<Record<string, string>>): Emitter {
  const folder = tempDir();
  const program = join(folder, "emitter.mjs");
  const logsDir = join(folder, "logs");
  const [logFile, noteFile] = [join(folder, "log.jsonl"), join(folder, "note")];
  writeFileSync(program, emitter(compiledServer()));
  writeFileSync(noteFile, "000000000");
  const emitted: Emitted[] = [];
  let positions = readPositions();
  let from = 1;
  let child = start();

  function start() {
    const facts = { config, logsDir, logFile, noteFile, from, total, users, event: chatFinished() };
    const started = spawn(process.execPath, [program, JSON.stringify(facts)], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { PATH: process.env.PATH, ...env },
    });
    // A process that is gone reads nothing.
    started.stdin.on("error", () => undefined);
    let said = "";
    started.stdout.on("data", (bytes: Buffer) => (said += bytes.toString()));
    const ended = once(started, "close").then(([code, signal]) => ({ code: code as unknown, signal, said }));
    return { started, ended };
  }

  const noted = () => Number(readFileSync(noteFile, "utf8"));

  function readPositions(): Positions {
    return new Map(
      sinks.map((sink) => {
        const file = join(logsDir, "spool", `${sink}.position`);
        return [sink, existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as { seq: number }).seq : 0];
      }),
    );
  }

  onTestFinished(async () => {
    child.started.kill("SIGKILL");
    await child.ended;
  });
  return {
    async reach(number) {
      // Some more, so that what comes next comes while it is emitting.
      child.started.stdin.write(`${number + 3000}\n`);
      await eventually(() => {
        if (noted() < number) throw new Error(`${noted()} of ${number} were emitted`);
      }, waitMs);
    },
    async crash() {
      child.started.kill("SIGKILL");
      expect(await child.ended).toMatchObject({ code: null, signal: "SIGKILL" });
      emitted.push({ from, to: noted() });
      positions = readPositions();
      from = noted() + 2;
      child = start();
    },
    async finish() {
      child.started.stdin.write(`${total}\n`);
      const { code, said } = await child.ended;
      expect([code, noted()]).toEqual([0, total]);
      emitted.push({ from, to: total });
      return said;
    },
    emitted: () => emitted,
    positions: () => positions,
    logged: () =>
      readFileSync(logFile, "utf8")
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as { level: string; event?: string }),
  };
}

/** An event as a consumer finds it. */
interface Found {
  readonly id: string;
  readonly user: string;
  readonly number: number;
  readonly data: string;
  /** All that the consumer has of it. */
  readonly text: string;
}

async function readStream({ url }: RedisServer): Promise<readonly Found[]> {
  const client = createClient({ url });
  await client.connect();
  const found: Found[] = [];
  try {
    for (let after = "-"; ;) {
      const entries = (await client.xRange(name, after, "+", { COUNT: 5000 })) ?? [];
      const last = entries.at(-1);
      if (last === undefined) return found;
      after = `(${last.id}`;
      for (const { message } of entries) {
        const { id = "", user = "", requestid, data = "" } = message;
        found.push({ id, user, number: Number(requestid), data, text: JSON.stringify(message) });
      }
    }
  } finally {
    client.destroy();
  }
}

async function readTopic(kafka: KafkaServer): Promise<readonly Found[]> {
  return (await kafka.readTopic(name)).map(({ key: user = "", value: data, headers }) => {
    const { ce_id: id = "", ce_requestid: number } = headers;
    return { id, user, number: Number(number), data, text: JSON.stringify([user, headers, data]) };
  });
}

/** The events that a consumer is left with once it has recognised duplicates by their ids, in its order. */
function withoutDuplicates(found: readonly Found[]): ReadonlyMap<string, Found> {
  const events = new Map<string, Found>();
  for (const event of found) {
    const first = events.get(event.id);
    if (first === undefined) events.set(event.id, event);
    else if (first.text !== event.text) throw new Error(`the same id: ${first.text} and ${event.text}`);
  }
  return events;
}

/** The first that is wrong with what a consumer is left with: events missing, invented, doubled or out of order. */
function faultsOf(events: Iterable<Found>, emitted: readonly Emitted[]): readonly string[] {
  const faults: string[] = [];
  const numbers = new Set<number>();
  const latest = new Map<string, number>();
  for (const { number, user, id } of events) {
    if (numbers.has(number)) faults.push(`${number} twice, again as ${id}`);
    numbers.add(number);
    const before = latest.get(user) ?? 0;
    if (number < before) faults.push(`${number} of ${user} after ${before}`);
    latest.set(user, number);
  }
  for (const { from, to } of emitted) {
    for (let number = from; number <= to; number++) if (!numbers.delete(number)) faults.push(`${number} is missing`);
    // It was killed before it could note this one.
    if (to < total) numbers.delete(to + 1);
  }
  return [...faults, ...[...numbers].map((number) => `${number} was not emitted`)].slice(0, 20);
}

/** The value of each sample, by name and labels. */
function samplesOf(metrics: string): ReadonlyMap<string, number> {
  const lines = metrics.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]));
}

function expectCounters(metrics: string, events: number, positions: Positions): void {
  const samples = samplesOf(metrics);
  for (const sink of sinks) {
    expect(samples.get(`events_forwarder_lag{sink="${sink}"}`)).toBe(0);
    expect(samples.get(`events_forwarder_connected{sink="${sink}"}`)).toBe(1);
    expect(samples.get(`events_forwarded_total{sink="${sink}"}`)).toBe(events - (positions.get(sink) ?? NaN));
  }
  const lost = [...samples].filter(([sample]) => sample.startsWith("events_lost_total"));
  expect(lost.length).toBeGreaterThan(0);
  expect(lost.filter(([, count]) => count !== 0)).toEqual([]);
}

describeWithRedis("events for other systems", () => {
  describeWithKafka("in a Redis Stream and in a Kafka topic", () => {
    it(
      `are all there, each user's in order, after kill -9 of the proxy, of Redis and of Kafka among ${total} of them`,
      async () => {
        // Redis has what it has acknowledged in its file, which no kill takes away.
        const redis = await startRedisServer(["--appendonly", "yes", "--appendfsync", "no"]);
        onTestFinished(() => redis.close());
        const kafka = await startKafkaServer();
        onTestFinished(() => kafka.close());
        await kafka.createTopic(name, 3);
        const proxy = startEmitter({ REDIS_URL: redis.url, KAFKA_BROKERS: kafka.broker });

        await proxy.reach(10_000);
        await redis.kill();
        await proxy.reach(20_000);
        // Redis is away.
        await proxy.crash();
        await proxy.reach(30_000);
        await redis.restart();
        await proxy.reach(35_000);
        await Promise.all([redis.kill(), kafka.kill()]);
        await proxy.reach(45_000);
        // Both are away.
        await proxy.crash();
        const bothAreBack = Promise.all([redis.restart(), kafka.restart()]);
        await proxy.reach(60_000);
        // Redis is back, and Kafka may be.
        await proxy.crash();
        await bothAreBack;
        await proxy.reach(80_000);
        // Both take what has been waiting.
        await proxy.crash();
        const metrics = await proxy.finish();

        const ofRedis = await readStream(redis);
        const ofKafka = await readTopic(kafka);
        const events = withoutDuplicates(ofRedis);
        expect(faultsOf(events.values(), proxy.emitted())).toEqual([]);
        const kafkaEvents = withoutDuplicates(ofKafka);
        expect(faultsOf(kafkaEvents.values(), proxy.emitted())).toEqual([]);
        // Both have the same events.
        expect([...events.values()].filter(({ id, data }) => kafkaEvents.get(id)?.data !== data)).toEqual([]);
        expect(kafkaEvents.size).toBe(events.size);
        // Otherwise every kill came when nothing was on its way, and this would show nothing of duplicates.
        expect(ofRedis.length + ofKafka.length).toBeGreaterThan(2 * events.size);
        expectCounters(metrics, events.size, proxy.positions());
        const logged = proxy.logged();
        expect(logged.filter(({ level }) => level === "error")).toEqual([]);
        expect(new Set(logged.map(({ event }) => event))).toContain("forwarder.failed");
      },
      startMs + 2 * waitMs,
    );
  });
});
