// What is measured. Each scenario takes a server and the load process, and answers with named figures. Where the load `sleeps`,
// others on its core get what it doesn't need.

const messages = [
  { role: "system", content: "You answer briefly." },
  { role: "user", content: "A prompt of about the size that chats begin with. ".repeat(8) },
];
const clients = 16;
const chunksPerSecond = 20;
const finished = '"finish_reason":"stop"';
const done = "data: [DONE]";

/** Requests whose answer is one JSON of ten tokens. The proxy makes it from a stream, the passthrough hands it on. */
export async function json(server, load, { ms, sleeps = false }) {
  const order = { order: "closed", ...to(server), mustContain: finished, clients, sleeps };
  const { result, cpuUs } = await measured(server, load, { ...order, ms, body: { model: "sim-fast", messages } });
  return {
    "json: CPU per request, µs": cpuUs / result.requests,
    "json: requests per second": result.requests / result.seconds,
  };
}

/** Streams of 100 events that come all at once. */
export async function burst(server, load, { ms, sleeps = false }) {
  const body = { model: "sim-burst", stream: true, messages };
  const order = { order: "closed", ...to(server), mustContain: done, clients, ms, body, sleeps };
  const { result, cpuUs } = await measured(server, load, order);
  return {
    "burst of 100: CPU per request, µs": cpuUs / result.requests,
    "burst of 100: CPU per chunk, µs": cpuUs / result.chunks,
    "burst of 100: requests per second": result.requests / result.seconds,
    "burst of 100: first event, p99, ms": result.p99Ms,
  };
}

/** One client, one request after the other: what the server adds where nothing queues. */
export async function firstToken(server, load, { ms, sleeps = false }) {
  const result = checked(await load.ask({ ...firstTokenOrder(server, ms), sleeps }));
  return { "first token, idle: p50, ms": result.p50Ms, "first token, idle: p99, ms": result.p99Ms };
}

/** What open streams hold in memory. `live` is the heap and its buffers after a collection, `resident` what the OS sees. */
export async function openMemory(server, load, { streams, ms }) {
  const before = await server.ask("memory");
  await openStreams(server, load, streams, ms);
  await sleep(ms / 2);
  const during = await server.ask("memory");
  await closeStreams(load);
  return {
    "open stream: live memory, KiB": (during.liveBytes - before.liveBytes) / streams / 1024,
    "open stream: resident memory, KiB": (during.rssBytes - before.rssBytes) / streams / 1024,
  };
}

/** Several hundred streams at 20 events a second each: the proxy's daily life. */
export async function paced(server, load, { streams, ms, settleMs }) {
  await openStreams(server, load, streams, settleMs + ms);
  // What opening them has left behind is collected by then.
  await sleep(settleMs);
  const [before, cpuBefore] = [await load.ask({ order: "count" }), await server.ask("usage")];
  await sleep(ms);
  const [after, cpuAfter] = [await load.ask({ order: "count" }), await server.ask("usage")];
  const probe = checked(await load.ask(firstTokenOrder(server, ms / 2)));
  await closeStreams(load);
  return {
    "paced: CPU per chunk, µs": (cpuAfter.cpuUs - cpuBefore.cpuUs) / (after.events - before.events),
    "paced: first token beside them: p50, ms": probe.p50Ms,
    "paced: first token beside them: p99, ms": probe.p99Ms,
  };
}

async function openStreams(server, load, count, ms) {
  // Opening takes a second, probing half as long as measuring; the rest is to spare.
  const seconds = Math.ceil(30 + (2 * ms) / 1000);
  const max_tokens = seconds * chunksPerSecond;
  const body = { model: `sim-paced:${chunksPerSecond}`, stream: true, max_tokens, messages };
  checked(await load.ask({ order: "open", ...to(server), body, count }));
}

/** All streams must still be running: none may have ended, well or not. */
async function closeStreams(load) {
  checked(await load.ask({ order: "count" }));
  await load.ask({ order: "leave" });
  await sleep(500);
}

function firstTokenOrder(server, ms) {
  const body = { model: "sim-fast", stream: true, messages };
  return { order: "closed", ...to(server), mustContain: done, clients: 1, ms, body };
}

async function measured(server, load, order) {
  const before = await server.ask("usage");
  const result = checked(await load.ask(order));
  const after = await server.ask("usage");
  return { result, cpuUs: after.cpuUs - before.cpuUs };
}

function to(server) {
  return { url: server.url, token: server.token };
}

/** A wrong answer makes every figure worthless, so it ends the run. */
function checked(result) {
  if (result.failure !== undefined) throw new Error(`a request failed: ${result.failure}`);
  return result;
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
