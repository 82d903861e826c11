// The clients, in a process of their own. Takes orders over the IPC channel, one at a time, and answers each.
import { Connection, requestBytes } from "./http-client.mjs";

let streams = [];
let events = 0;
const connections = new Map();
/** Orders that are being carried out. */
let running = 0;
let awake = false;

const orders = { closed, open, count, leave, arrivals, atOnce };

process.on("message", async ({ order, ...options }) => {
  running++;
  // Where the provider, or Redis, needs the core to keep up, it gets what of it is left.
  if (order !== "arrivals" && order !== "atOnce" && options.sleeps !== true) stayAwake();
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

/** Nobody waits longer for an answer, in ms. */
const patienceMs = 3000;

/** Requests that come at a rate for `ms`, whether or not the earlier ones are answered; and GETs of /livez beside them. */
async function arrivals({ url, token, body, perSecond, ms }) {
  const bytes = requestBytes(url, token, body);
  const idle = [];
  const connections = [];
  const pending = new Set();
  let [sent, served, refused] = [0, 0, 0];
  const startedAt = performance.now();
  const livez = probe(`${url}/livez`, () => performance.now() - startedAt < ms);
  const send = async () => {
    let connection = idle.pop();
    if (connection === undefined) connections.push((connection = new Connection(url)));
    const { ok, head } = await connection.send(bytes, "data: [DONE]");
    if (ok) served++;
    else if (head?.startsWith("HTTP/1.1 503") === true) refused++;
    idle.push(connection);
  };
  for (let passed = 0; passed < ms; passed = performance.now() - startedAt) {
    for (; sent < (passed / 1000) * perSecond; sent++) {
      const one = send().finally(() => pending.delete(one));
      pending.add(one);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const goodput = served / seconds;
  await Promise.race([Promise.all(pending), new Promise((resolve) => setTimeout(resolve, patienceMs))]);
  for (const connection of connections) connection.close();
  return { sent: sent / seconds, goodput, refused: refused / sent, livez: percentiles(await livez).p99Ms };
}

/** Times of GETs, one every 20 ms. */
async function probe(url, goesOn) {
  const times = [];
  while (goesOn()) {
    const startedAt = performance.now();
    await (await fetch(url)).text();
    times.push(performance.now() - startedAt);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return times;
}

/** So many clients with a connection each, all at once. Times to the first event. */
async function atOnce({ url, token, body, clients }) {
  const bytes = requestBytes(url, token, body);
  const connections = Array.from({ length: clients }, () => new Connection(url));
  const results = await Promise.all(connections.map((connection) => connection.send(bytes, "data: [DONE]")));
  for (const connection of connections) connection.close();
  const firsts = results.filter(({ ok }) => ok).map(({ sentAt, firstAt }) => firstAt - sentAt);
  return { ...percentiles(firsts), last: Math.max(...firsts), refused: clients - firsts.length };
}
