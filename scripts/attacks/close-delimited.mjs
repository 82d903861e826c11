/**
 * Answers that last until the connection closes, in events of 1 KB to 5 MB, for readers of every speed, ended cleanly
 * and by a reset. undici's parser asserts that it isn't paused at such an end; what fails must be one answer, never the
 * process. Exits with 1 on an exception that nobody caught, on an answer that never ends, and on one that is wrong.
 *
 * npm run build && node scripts/attacks/close-delimited.mjs [runs, default 2000] [seed]
 */
import { createServer } from "node:net";
import { systemClock } from "../../dist/lib/clock.js";
import { Exchange } from "../../dist/providers/attempt.js";
import { createProvider } from "../../dist/providers/create-provider.js";
import { createRandom } from "./random.mjs";

const runs = Number(process.argv[2] ?? 2000);
const seed = Number(process.argv[3] ?? Date.now() % 1e9);
const parallel = 16;
const longestRunMs = 30_000;
const endings = ["end", "reset", "finished then reset"];

const random = createRandom(seed);
const counts = { complete: 0, broken: 0 };
let failures = 0;

function fail(message) {
  failures++;
  console.error(message);
}

for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, (error) => {
    console.error(error);
    console.error(`${event}: the process would have ended (seed ${seed})`);
    process.exit(1);
  });
}

/** Sizes from 1 KB to 5 MB, evenly over their logarithm, up to 6 MB in all. */
function plan() {
  const sizes = [];
  let total = 0;
  const count = 1 + Math.floor(random() * 6);
  while (sizes.length < count && total < 6e6) {
    const size = Math.round(1024 * 5000 ** random());
    sizes.push(size);
    total += size;
  }
  return { sizes, ending: endings[Math.floor(random() * endings.length)], pace: Math.floor(random() * 4) };
}

const event = (content, finish = null) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: finish }] })}\n\n`;

/** By the number of the run, which is the request's body. */
const plans = new Map();
const server = createServer((socket) => {
  socket.on("error", () => undefined);
  socket.once("data", (request) => {
    const { sizes, ending } = plans.get(Number(request.toString().split("\r\n\r\n")[1]));
    socket.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    for (const size of sizes) socket.write(event("x".repeat(size)));
    if (ending !== "reset") socket.write(event("", "stop"));
    if (ending === "end") socket.end();
    else socket.write("", () => setTimeout(() => socket.resetAndDestroy(), random() * 5));
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const ms = 60_000;
const provider = createProvider({
  name: "closing",
  keyIndex: 0,
  kind: "openai",
  baseUrl: `http://127.0.0.1:${server.address().port}`,
  apiKey: "key",
  models: ["*"],
  modelMap: {},
  priority: 0,
  weight: 1,
  timeouts: {
    connect: ms,
    firstByte: ms,
    firstEvent: ms,
    idle: ms,
    total: ms,
    stalledReader: ms,
    heartbeat: ms,
  },
  breaker: { failures: 1e9, windowMs: 1, openMs: 1 },
});

/** Reads as fast as it can; pauses at each event, for a turn or some ms; or pauses at each network read. */
function read(attempt, pace) {
  return new Promise((resolve) => {
    const rest = () => {
      attempt.pause();
      const resume = () => attempt.resume();
      if (pace === 1) setImmediate(resume);
      else setTimeout(resume, random() * 8);
    };
    attempt.pipe({
      onEvent: () => (pace === 1 || pace === 2 ? rest() : undefined),
      onBatch: () => (pace === 3 ? rest() : undefined),
      onEnd: resolve,
    });
  });
}

async function run(number) {
  const what = plan();
  plans.set(number, what);
  const question = {
    api: "chat",
    collects: false,
    choices: 1,
    canDropStreamOptions: false,
    bodyFor: () => Buffer.from(String(number)),
  };
  const attempt = new Exchange(provider, 0, question, systemClock);
  const late = new Promise((resolve) => setTimeout(resolve, longestRunMs, "late").unref());
  const reading = (async () => {
    try {
      await attempt.open("m", systemClock.monotonic());
      return await read(attempt, what.pace);
    } catch (error) {
      return error;
    }
  })();
  const fault = await Promise.race([reading, late]);
  const told = `run ${number}: ${JSON.stringify(what)} came to ${fault?.message ?? fault}`;
  if (fault === "late") fail(`${told}: it never ended`);
  else if (fault !== null && what.ending === "end") fail(told);
  plans.delete(number);
  counts[fault === null ? "complete" : "broken"]++;
  attempt.cancel();
}

let next = 0;
async function worker() {
  while (next < runs && failures === 0) await run(next++);
}
await Promise.all(Array.from({ length: parallel }, worker));
await provider.dispatcher.destroy();
server.close();
console.log(`${next} runs, seed ${seed}: ${JSON.stringify(counts)}, ${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
