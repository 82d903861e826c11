// Measures the proxy beside a bare fastify + undici passthrough, on the same upstream, in one run.
//
//   npm run bench                 about six minutes
//   npm run bench -- --smoke      a few seconds: proves that it runs, the figures mean little
//   npm run bench -- --rounds 30  more rounds for a noisy machine
//   npm run bench -- --json       the figures of every round, for machines
//
// Fails only if a request failed; a slow machine is no failure.
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { measureLedger } from "./micro.mjs";
import { measureRates } from "./rates.mjs";
import { createRunning, startLoad, startPassthrough, startProxy, startUpstream } from "./processes.mjs";
import { burst, firstToken, json, openMemory, paced } from "./scenarios.mjs";
import { comparison } from "./table.mjs";

const { values: options } = parseArgs({
  options: { smoke: { type: "boolean" }, json: { type: "boolean" }, rounds: { type: "string" } },
});
const size = options.smoke
  ? {
      rounds: 1,
      warmUpMs: 200,
      ms: 400,
      settleMs: 200,
      streams: 50,
      ledger: { rounds: 2_000, records: 20_000, users: 100 },
      rates: { users: 1000, rounds: 10_000 },
    }
  : {
      // Many and short: the speed of a virtual machine changes by the second, and each round compares.
      rounds: Number(options.rounds ?? 12),
      // V8 goes on optimizing for some ten thousand requests.
      warmUpMs: 10_000,
      ms: 1000,
      settleMs: 3000,
      streams: 300,
      ledger: { rounds: 100_000, records: 1_000_000, users: 10_000 },
      rates: { users: 1_000_000, rounds: 200_000 },
    };

const dir = mkdtempSync(join(tmpdir(), "proxy-bench-"));
const { keep, stopAll } = createRunning();

try {
  const upstream = await keep(startUpstream(dir));
  const load = await keep(startLoad(dir));
  const passthrough = await keep(startPassthrough(dir, upstream.url));
  const proxy = await keep(startProxy(dir, upstream.url));
  const direct = { name: "direct", url: upstream.url, token: "bench" };

  const figures = { direct: [], passthrough: [], proxy: [] };
  const memory = {};
  for (const server of [passthrough, proxy]) {
    // First of all, because only a fresh process shows in its resident memory what streams need.
    memory[server.name] = await openMemory(server, load, size);
    for (const scenario of [json, burst, firstToken]) await scenario(server, load, { ms: size.warmUpMs });
  }
  for (let round = 0; round < size.rounds; round++) {
    progress(`round ${round + 1} of ${size.rounds}`);
    figures.direct.push(await firstToken(direct, load, size));
    const inTurn = round % 2 === 0 ? [passthrough, proxy] : [proxy, passthrough];
    const results = new Map(inTurn.map((server) => [server.name, {}]));
    for (const scenario of [json, burst, firstToken, paced]) {
      for (const server of inTurn) {
        // A full collection, as between the scenarios, discards compiled code that nothing has used lately.
        if (scenario === json || scenario === burst) await scenario(server, load, size);
        Object.assign(results.get(server.name), await scenario(server, load, size));
      }
    }
    for (const [name, result] of results) figures[name].push({ ...result, ...memory[name] });
  }
  const ledger = await measureLedger(join(dir, "ledger"), size.ledger);
  const rates = measureRates(size.rates);

  const machine = `${cpus()[0]?.model ?? "unknown CPU"}, ${availableParallelism()} cores, Node ${process.version}`;
  if (options.json) print(JSON.stringify({ machine, size, rounds: figures, ledger, rates }, undefined, 2));
  else {
    print(`${machine}; medians of ${size.rounds} rounds, ${size.streams} paced streams\n`);
    print(comparison(figures.direct, figures.passthrough, figures.proxy));
    print(
      `\n${Object.entries({ ...ledger, ...rates })
        .map(line)
        .join("\n")}`,
    );
  }
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await stopAll();
  rmSync(dir, { recursive: true, force: true });
}

function line([name, value]) {
  return `${name}: ${value.toFixed(2)}`;
}

function progress(text) {
  process.stderr.write(`${text}\n`);
}

function print(text) {
  process.stdout.write(`${text}\n`);
}
