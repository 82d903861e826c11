// The clients, in a process of their own. Takes orders over the IPC channel, one at a time, and answers each.
import { Connection, requestBytes } from "./http-client.mjs";

let streams = [];
let events = 0;
const connections = new Map();
/** Orders that are being carried out. */
let running = 0;
let awake = false;

const orders = { closed, open, count, leave };

process.on("message", async ({ order, ...options }) => {
  running++;
  stayAwake();
  process.send(await orders[order](options));
  running--;
});
process.on("disconnect", () => process.exit());

/**
 * While there is anything to do this process doesn't sleep. To wake it would be for the server that writes to it, and on
 * a virtual machine that costs more than the chunk does; the slower server would have to do it more often as well.
 */
function stayAwake() {
  if (!awake) setImmediate(spin);
  awake = true;
}

function spin() {
  awake = running > 0 || streams.length > 0;
  if (awake) setImmediate(spin);
}

/** So many clients, each sending its next request when the last is answered, for `ms`. */
async function closed({ url, token, body, mustContain, clients, ms }) {
  const bytes = requestBytes(url, token, body);
  const firsts = [];
  let requests = 0;
  let chunks = 0;
  let failure;
  const startedAt = performance.now();
  await Promise.all(
    pool(url, clients).map(async (connection) => {
      while (performance.now() - startedAt < ms && failure === undefined) {
        const result = await connection.send(bytes, mustContain);
        if (!result.ok) failure = describe(result);
        requests++;
        chunks += result.events;
        firsts.push(result.firstAt - result.sentAt);
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  return { requests, chunks, seconds, failure, ...percentiles(firsts) };
}

/** Opens streams and leaves them running; answers when each has had its first event. */
async function open({ url, token, body, count }) {
  const bytes = requestBytes(url, token, body);
  events = 0;
  let failure;
  await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      // Spread over a second, so that the streams' ticks don't all fall together.
      await new Promise((resolve) => setTimeout(resolve, (index * 1000) / count));
      const stream = { connection: new Connection(url), over: undefined };
      streams.push(stream);
      await new Promise((resolve) => {
        const sent = stream.connection.send(bytes, "data: [DONE]", (more) => {
          events += more;
          resolve();
        });
        void sent.then((result) => {
          stream.over = describe(result);
          failure ??= result.ok ? undefined : stream.over;
          resolve();
        });
      });
    }),
  );
  return { failure };
}

/** Events of the open streams so far; the streams must all go on, so one that is over is a failure. */
function count() {
  const over = streams.filter((stream) => stream.over !== undefined);
  const failure =
    over.length > 0 ? `${over.length} of ${streams.length} streams ended early: ${over[0].over}` : undefined;
  return { events, failure };
}

function describe(result) {
  return `${result.head ?? "the connection broke before the headers"} (${result.events} events)`;
}

function leave() {
  for (const stream of streams) stream.connection.close();
  streams = [];
  return {};
}

/** Connections are kept between orders, as clients do. */
function pool(url, size) {
  const known = connections.get(url) ?? [];
  while (known.length < size) known.push(new Connection(url));
  connections.set(url, known);
  return known.slice(0, size);
}

function percentiles(values) {
  values.sort((a, b) => a - b);
  const at = (share) => values[Math.min(values.length - 1, Math.floor(values.length * share))];
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}
