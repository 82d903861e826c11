// Emits events at a given rate into what writes them down, in a process of its own. Takes orders over the IPC channel.
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseConfig } from "../dist/config/load.js";
import { openEvents } from "../dist/events/open-events.js";
import { createBehaviourLog } from "../dist/events/log-files/behaviour-log.js";
import { createEnvelopes } from "../dist/events/envelope.js";
import { createBus } from "../dist/events/bus.js";
import { createLogger } from "../dist/events/logger.js";
import { closeAll } from "../dist/lib/close-all.js";
import { createUuid7 } from "../dist/lib/uuid7.js";

const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const dayOf = (at) => new Date(at).toISOString().slice(0, 10);
const log = createLogger({ level: "silent", destination: { write: () => undefined } });
const config = parseConfig("", "config");
/** Most events emitted before the event loop gets its turn: the emitter itself must not be what delays it. */
const perTurn = 200;

// Written out, as the gateway does: to spread an object of this size costs more than to write the event down.
// prettier-ignore
const chat = (at, user) => ({
  type: "chat.finished", at, traceId: "0198c0de-0000-7000-8000-000000000000", ip: "192.0.2.1", user, keyId: "k1",
  client: "sdk", group: "", api: "chat", model: "deepseek-chat", provider: "deepseek", stream: true, outcome: "completed",
  code: "ok", refusedBy: "", status: 200, requests: 1, inputTokens: 100, cachedTokens: 40, outputTokens: 11,
  reasoningTokens: 5, cost: 1500, currency: "CNY", estimated: false, firstEventMs: 30, generationMs: 200,
  durationMs: 250.04, queueMs: 0, retries: 0,
});

const ways = { behaviourLog, allSinks, eachAlone };

process.on("message", async ({ way, dir, ...load }) => {
  await mkdir(dir, { recursive: true });
  process.send(await ways[way](dir, load));
  await rm(dir, { recursive: true, force: true });
});
process.on("disconnect", () => process.exit());

/** The behaviour log alone, as it stands behind the bus. */
async function behaviourLog(dir, load) {
  const envelopes = createEnvelopes({ node: "bench", newId: newIds() });
  const written = createBehaviourLog({ ...logOptions(), logsDir: dir, envelopes });
  const bus = createBus({ log, clock });
  bus.subscribe("behaviour_log", written.sink);
  const figures = await emitAt(load, (event) => bus.emit(event));
  await written.close();
  return { ...figures, lost: figures.emitted - (await countLines(join(dir, "users"))) };
}

/** Everything that a proxy without a webhook, Redis or Kafka does with an event; its own log goes nowhere. */
async function allSinks(dir, load) {
  const closers = [];
  const events = await openEvents({
    config,
    env: {},
    logsDir: dir,
    node: "bench",
    dayOf,
    clock,
    log,
    onOpen: (close) => closers.push(close),
  });
  const figures = await emitAt(load, (event) => events.bus.emit(event));
  await closeAll(closers);
  const [own, all] = [await countLines(join(dir, "users")), await countLines(join(dir, "requests", "users"))];
  return { ...figures, lost: 2 * figures.emitted - own - all };
}

/** Open, write, flush, close for each event, one after the other for each user; as many may wait as in the log. */
async function eachAlone(dir, load) {
  const latest = new Map();
  let [waiting, lost] = [0, 0];
  const append = async (file, line) => {
    const handle = await open(file, "a", 0o600);
    try {
      await handle.appendFile(line);
      await handle.datasync();
    } finally {
      await handle.close();
    }
    waiting--;
  };
  const figures = await emitAt(load, (event) => {
    if (waiting >= config.logs.max_queued) {
      lost++;
      return;
    }
    waiting++;
    const file = join(dir, `${event.user}.jsonl`);
    const line = `${JSON.stringify({ ts: new Date(event.at).toISOString(), event: event.type, ...event })}\n`;
    const next = (latest.get(event.user) ?? Promise.resolve()).then(() => append(file, line));
    latest.set(event.user, next);
  });
  // What still waits was not written in time.
  lost += waiting;
  await Promise.all(latest.values());
  return { ...figures, lost };
}

function logOptions() {
  const { flush_ms, max_queued, max_file_bytes, keep_days, audit_keep_days } = config.logs;
  return {
    flushMs: flush_ms,
    maxQueued: max_queued,
    maxFileBytes: max_file_bytes,
    keepDays: keep_days,
    auditKeepDays: audit_keep_days,
    dayOf,
    clock,
    log,
  };
}

function newIds() {
  return createUuid7(
    () => Date.now(),
    (bytes) => crypto.getRandomValues(bytes),
  );
}

/** Emits `perSecond` events for `ms`, of `users` in turn. What the machine is late with is made up for. */
async function emitAt({ users, perSecond, ms }, emit) {
  const names = Array.from({ length: users }, (_, index) => `user-${index}`);
  const total = Math.round((perSecond * ms) / 1000);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let emitted = 0;
  const [startedAt, cpu] = [performance.now(), process.cpuUsage()];
  delay.enable();
  await new Promise((resolve) => {
    const turn = () => {
      const due = Math.min(total, ((performance.now() - startedAt) * perSecond) / 1000, emitted + perTurn);
      const at = Date.now();
      for (; emitted < due; emitted++) emit(chat(at, names[emitted % users]));
      if (emitted >= total) resolve();
      else if (((performance.now() - startedAt) * perSecond) / 1000 - emitted > perTurn) setImmediate(turn);
      else setTimeout(turn, 1);
    };
    turn();
  });
  delay.disable();
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const ms99 = (share) => delay.percentile(share) / 1e6;
  return {
    emitted,
    perSecond: emitted / seconds,
    cores: (user + system) / 1e6 / seconds,
    p50Ms: ms99(50),
    p99Ms: ms99(99),
    maxMs: delay.max / 1e6,
  };
}

/** Lines in all files of the folders in a folder. */
async function countLines(folder) {
  let lines = 0;
  for (const user of await readdir(folder)) {
    for (const file of await readdir(join(folder, user))) {
      for await (const bytes of createReadStream(join(folder, user, file))) {
        for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) lines++;
      }
    }
  }
  return lines;
}
