import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import { eventually } from "./eventually.ts";
import { quotaOf } from "./quota.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "./scripted-upstream.ts";
import { openStream, type SseClient } from "./sse-client.ts";
import { alicePassword, bearer, post, startProxy, userFile } from "./start-proxy.ts";
import type { ProxyOptions, RunningProxy } from "./start-proxy.ts";

/** As much of a line of the behaviour log as tests look at. */
interface ChatLine {
  readonly event: string;
  readonly outcome: string;
  readonly code: string;
  readonly requests: number;
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly cost_nano: number;
  readonly estimated: boolean;
}

/** A proxy whose one model has weight 2 and a price, in front of a provider played by hand. */
export interface BilledProxy {
  readonly proxy: RunningProxy;
  readonly upstream: ScriptedUpstream;
  /** Sends `chatBody(stream)` as SSE. */
  open(): Promise<SseClient>;
  /** Sends it as one JSON. */
  collect(): Promise<Response>;
  /** Sends any body to any path, and shows what comes back as it comes. */
  ask(path: string, body: object, headers?: Readonly<Record<string, string>>): Promise<SseClient>;
  /** Requests, tokens and nano-yuan used in all; fails while anything is still held or running. */
  used(): Promise<readonly number[]>;
  /** The one chat in the behaviour log; waits for it. */
  logged(): Promise<ChatLine>;
  /** Makes a client go away, and waits until the proxy has noticed. */
  away(leave: () => void): Promise<void>;
}

/** Nano-yuan per token, by which `priced` works. */
const nano = { hit: 500, miss: 1000, said: 4000, thought: 8000 };

export const weight = 2;

/** What so many tokens cost: [requests, tokens, nano-yuan]. */
export function priced(input: number, output: number, { cached = 0, reasoning = 0 } = {}): readonly number[] {
  const cost =
    cached * nano.hit + (input - cached) * nano.miss + (output - reasoning) * nano.said + reasoning * nano.thought;
  return [weight, input + output, cost];
}

export const nothing = [0, 0, 0];

export function chatBody(stream: boolean): object {
  return { model: "flash", stream, max_tokens: 10, messages: [{ role: "user", content: "What will this cost?" }] };
}

/** The prompt's tokens where the provider reports nothing: four bytes each. */
export function estimatedPrompt(stream: boolean): number {
  return Math.ceil(JSON.stringify(chatBody(stream)).length / 4);
}

export interface BilledOptions {
  /** TOML after what is there already. */
  readonly config?: string;
  /** The tier's limit of tokens in all. */
  readonly maxTokens?: number;
  /** Only a limit of requests. */
  readonly requestsOnly?: boolean;
  /** Where the proxy finds the provider, where that is not straight at it. */
  readonly through?: (upstreamUrl: string) => Promise<string>;
  /** How often the provider is asked for one answer; default 1. */
  readonly attempts?: number;
  /** Which API the provider speaks; default deepseek. */
  readonly kind?: ProxyOptions["kind"];
  readonly backends?: ProxyOptions["backends"];
  readonly clock?: Clock;
}

/** Starts both for the running test. */
export async function startBilledProxy(options: BilledOptions = {}): Promise<BilledProxy> {
  const { config = "", maxTokens = 1e9, requestsOnly = false, through, kind = "deepseek", attempts = 1 } = options;
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  const limits = [
    '{ metric = "requests", per = "total", max = 100 }',
    `{ metric = "tokens", per = "total", max = ${maxTokens} }`,
    '{ metric = "cost", per = "total", max = 1000 }',
  ];
  const proxy = await startProxy({
    upstreamUrl: through === undefined ? upstream.url : await through(upstream.url),
    kind,
    users: { alice: userFile("alice", alicePassword) },
    ...(options.backends === undefined ? {} : { backends: options.backends }),
    ...(options.clock === undefined ? {} : { clock: options.clock }),
    config: `
[models]
weights = { flash = ${weight} }
[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 0.5
cache_miss = 1
output = 4
reasoning = 8
[quota.tiers.basic]
limits = [${limits.slice(0, requestsOnly ? 1 : 3).join(", ")}]
[retry]
attempts = ${attempts}
${config}`,
  });
  onTestFinished(() => proxy.dispose());
  const token = await proxy.login();

  async function logged(): Promise<ChatLine> {
    const folder = join(proxy.folder, "logs", "users", "alice");
    let line: ChatLine | undefined;
    await eventually(async () => {
      const files = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), "utf8")));
      const lines = files.flatMap((text) =>
        text
          .trim()
          .split("\n")
          .map((each) => JSON.parse(each) as ChatLine),
      );
      const chats = lines.filter(({ event }) => event === "chat.finished");
      if (chats.length !== 1) throw new Error(`${chats.length} chats are in the behaviour log`);
      line = chats[0];
    });
    if (line === undefined) throw new Error("no chat is in the behaviour log");
    return line;
  }

  function connections(): Promise<number> {
    return new Promise((resolve, reject) => {
      proxy.server.app.server.getConnections((error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  return {
    proxy,
    upstream,
    async away(leave) {
      const before = await connections();
      leave();
      await eventually(async () => {
        if ((await connections()) >= before) throw new Error("the proxy hasn't noticed that its client has left");
      });
    },
    open: () => openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body: chatBody(true) }),
    ask: (path, body, headers) =>
      openStream(`${proxy.url}${path}`, { headers: { ...bearer(token), ...headers }, body }),
    collect: () => post(`${proxy.url}/chat/completions`, chatBody(false), bearer(token)),
    async used() {
      const limits = await quotaOf(proxy, token);
      const held = limits.filter(({ reserved }) => reserved !== 0);
      if (held.length > 0 || proxy.services.concurrency.inFlight() > 0) throw new Error("a chat is still running");
      return limits.map(({ metric, used }) => Math.round(metric === "cost" ? used * 1e9 : used));
    },
    logged,
  };
}
