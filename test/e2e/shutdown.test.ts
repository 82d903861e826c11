import { request as httpRequest, Agent } from "node:http";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "smol-toml";
import { beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { readJournal } from "../../src/lib/journal/journal-folder.ts";
import { quotaOf } from "../support/quota.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { compiledServer, startServerProcess, type ServerProcess } from "../support/server-process.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";
import { alicePassword, bearer, post, userFile } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

const body = JSON.stringify({ model: "flash", stream: true, messages: [{ role: "user", content: "Until the end?" }] });
/** As estimated where nothing was reported: four bytes a token. */
const prompt = Math.ceil(body.length / 4);

const config = (upstreamUrl: string, shutdownSeconds: number) => `
[server]
port = 0
shutdown_seconds = ${shutdownSeconds}
[storage]
snapshot_interval_seconds = 3600
[logs]
flush_ms = 60000
[[providers]]
name = "upstream"
kind = "deepseek"
base_url = "${upstreamUrl}"
models = ["*"]
[models]
weights = { flash = 3 }
[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 1
cache_miss = 1
output = 4
[quota.tiers.basic]
limits = [
  { metric = "requests", per = "total", max = 1000 },
  { metric = "tokens", per = "total", max = 1000000 },
  { metric = "cost", per = "total", max = 1000 },
]
`;

describe("the program that is told to stop", () => {
  let code: string;
  let upstream: ScriptedUpstream;
  let folder: string;
  let server: ServerProcess;
  let token: string;

  beforeAll(() => {
    code = compiledServer();
  });

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    folder = tempDir();
    mkdirSync(join(folder, "users"));
    writeFileSync(join(folder, "users", "alice.toml"), userFile("alice", alicePassword, "max_parallel = 10\n"));
  });

  async function start(shutdownSeconds: number, more = ""): Promise<void> {
    writeFileSync(join(folder, "config.toml"), config(upstream.url, shutdownSeconds) + more);
    server = await startServerProcess({ code, folder, env: { DEEPSEEK_API_KEY: "sk-test" } });
    onTestFinished(async () => {
      server.kill("SIGKILL");
      await server.ended;
    });
    const answer = await post(`${server.url}/auth/login`, { username: "alice", password: alicePassword });
    token = ((await answer.json()) as { token: string }).token;
  }

  /** A stream whose client has seen its first event. */
  async function open() {
    const opening = openStream(`${server.url}/chat/completions`, { headers: bearer(token), body });
    const call = await upstream.next();
    await call.delta("one");
    const client = await opening;
    await client.nextEvent();
    return { call, client };
  }

  /** Requests, tokens and nano-yuan. */
  async function used(): Promise<number[]> {
    const limits = await quotaOf(server, token);
    return limits.map(({ metric, used: amount }) => Math.round(metric === "cost" ? amount * 1e9 : amount));
  }

  /** The chats in the behaviour log. */
  function logged(): Record<string, unknown>[] {
    const logs = join(folder, "logs", "users", "alice");
    return readdirSync(logs)
      .flatMap((name) => readFileSync(join(logs, name), "utf8").trim().split("\n"))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ event }) => event === "chat.finished");
  }

  it.each(["SIGTERM", "SIGINT"] as const)(
    "%s: lets streams end until the deadline, ends the others with an error event, and loses no charge",
    async (signal) => {
      await start(2);
      const [short, long] = [await open(), await open()];
      const idle = await keptAlive(server.url);
      server.kill(signal);
      await server.logged("stopping");
      expect([503, "refused"]).toContain(await outcomeOfNew(() => openStream(`${server.url}/livez`)));
      expect([503, "refused"]).toContain(await outcomeOfNew(idle));

      await short.call.finish({ prompt_tokens: 9, completion_tokens: 2 });
      expect((await short.client.rest()).at(-1)?.data).toBe("[DONE]");
      expect(await short.client.ended).toBe("complete");
      await long.call.delta("two");
      const rest = await long.client.rest();
      expect(rest.at(-1)?.json?.error).toMatchObject({ code: "shutting_down" });
      expect(rest.map(({ data }) => data)).not.toContain("[DONE]");
      expect(await long.client.ended).toBe("complete");
      await long.call.closed;
      expect(await server.ended).toEqual({ code: 0, signal: null });

      // Two requests of weight 3; 9 + 2 tokens as reported, the prompt and 2 tokens as estimated; 1 and 4 yuan a million.
      const totals = [6, 11 + prompt + 2, 1000 * 9 + 4000 * 2 + 1000 * prompt + 4000 * 2];
      expect(totalOnDisk(folder)).toEqual(totals);
      expect(logged().sort((a, b) => Number(a.estimated) - Number(b.estimated))).toMatchObject([
        { outcome: "completed", requests: 3, input_tokens: 9, output_tokens: 2, estimated: false },
        {
          outcome: "shutdown",
          requests: 3,
          input_tokens: prompt,
          output_tokens: 2,
          estimated: true,
          code: "shutting_down",
        },
      ]);
      // What is in the journal is in the snapshots, so it need not be read.
      rmSync(join(folder, "users", "journal"), { recursive: true });
      await start(1);
      expect(await used()).toEqual(totals);
    },
  );

  it("answers a collected chat that is too late with 503, and charges it as estimated", async () => {
    await start(0.1);
    const collected = post(`${server.url}/chat/completions`, { ...JSON.parse(body), stream: false }, bearer(token));
    const call = await upstream.next();
    await call.delta("one");
    await expect.poll(used).toEqual([3, expect.any(Number), expect.any(Number)]);
    server.kill("SIGTERM");
    const answer = await collected;
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ error: { code: "shutting_down" } });
    expect(await server.ended).toEqual({ code: 0, signal: null });
    const estimated = Math.ceil((body.length + 1) / 4);
    expect(totalOnDisk(folder)).toEqual([3, estimated + 1, 1000 * estimated + 4000]);
  });

  it("doesn't wait beyond the deadline for an answer whose client has left", async () => {
    await start(0.1, '[abort]\npolicy = "drain"\ndrain_seconds = 600\n');
    const { call, client } = await open();
    client.leave();
    // By the time this is answered the server has seen the other connection go.
    await openStream(`${server.url}/livez`);
    server.kill("SIGTERM");
    expect(await server.ended).toEqual({ code: 0, signal: null });
    await call.closed;
    expect(totalOnDisk(folder)).toEqual([3, prompt + 1, 1000 * prompt + 4000]);
  });

  it("ends at once when told a second time, with the first charge kept", async () => {
    await start(3600);
    const { client } = await open();
    server.kill("SIGTERM");
    await server.logged("stopping");
    server.kill("SIGTERM");
    expect(await server.ended).toEqual({ code: 130, signal: null });
    expect(await client.ended).toBe("aborted");
    await start(1);
    expect(await used()).toEqual([3, prompt, 1000 * prompt]);
  });
});

/** The totals in alice's snapshot, which must cover all of the journal. */
function totalOnDisk(folder: string): number[] {
  const users = join(folder, "users");
  const snapshot = parse(readFileSync(join(users, "alice.quota.toml"), "utf8")) as {
    covers_seq: number;
    total: { requests: number; tokens: number; cost: { CNY: number } };
  };
  let last = 0;
  readJournal(join(users, "journal"), (seq) => (last = seq));
  expect(snapshot.covers_seq).toBeGreaterThanOrEqual(last);
  return [snapshot.total.requests, snapshot.total.tokens, snapshot.total.cost.CNY];
}

/** A connection that has served one request; returns a way to send another on it. */
async function keptAlive(url: string): Promise<() => Promise<{ status: number }>> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => {
    agent.destroy();
  });
  const ask = () =>
    new Promise<{ status: number }>((resolve, reject) => {
      const request = httpRequest(`${url}/livez`, { agent }, (response) => {
        response.resume().once("end", () => {
          resolve({ status: response.statusCode ?? 0 });
        });
      });
      request.on("error", reject).end();
    });
  expect(await ask()).toEqual({ status: 200 });
  return ask;
}

async function outcomeOfNew(send: () => Promise<Pick<SseClient, "status">>): Promise<number | "refused"> {
  return send().then(
    ({ status }) => status,
    () => "refused",
  );
}
