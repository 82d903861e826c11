import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { runStateCli } from "../../src/cli/state-commands.ts";
import { runCli } from "./cli.ts";
import { eventually } from "./eventually.ts";
import { newPrefix } from "./redis-server.ts";
import { compiledServer, startServerProcess, type ServerProcess } from "./server-process.ts";
import { openStream } from "./sse-client.ts";
import { alicePassword, bearer, post } from "./start-proxy.ts";
import { tempDir } from "./temp-dir.ts";

/** One of several real processes over one Redis, with a folder that outlives it. */
export interface FleetNode {
  /** Of the running process; undefined while there is none. */
  readonly url: string | undefined;
  readonly folder: string;
  /** Ends it as a crash does. */
  kill(): Promise<void>;
  start(): Promise<void>;
  /** Ends it as SIGTERM does, and starts it again once it is gone. */
  restart(): Promise<void>;
  /** Ends it as SIGTERM does, and compares its folder with Redis: what differs. */
  stopAndVerify(): Promise<string>;
}

export interface FleetOptions {
  /** REDIS_URL of each node: so many are started, the first with the users. */
  readonly redisUrls: readonly string[];
  /** users/NAME.toml by name. */
  readonly users: Readonly<Record<string, string>>;
  readonly keyPrefix?: string;
  /** Where each node listens; absent: on a free port, another one at each start. */
  readonly ports?: readonly number[];
  /** TOML beside what every test needs. */
  readonly config: string;
}

/** Starts them one after another. Killed at the end of the test. */
export async function startFleet(options: FleetOptions): Promise<readonly FleetNode[]> {
  const { redisUrls, users, keyPrefix = newPrefix(), ports = [], config } = options;
  const code = compiledServer();
  const nodes: FleetNode[] = [];
  for (const [index, redisUrl] of redisUrls.entries()) {
    const folder = tempDir();
    mkdirSync(join(folder, "users"));
    for (const [user, text] of index === 0 ? Object.entries(users) : [])
      writeFileSync(join(folder, "users", `${user}.toml`), text);
    const state = `[state]\nbackend = "redis"\nkey_prefix = "${keyPrefix}"\nlease_seconds = 5\n`;
    writeFileSync(join(folder, "config.toml"), `${state}${config}`);
    const node = createNode(code, folder, { REDIS_URL: redisUrl, PORT: String(ports[index] ?? 0) });
    await node.start();
    nodes.push(node);
  }
  return nodes;
}

function createNode(code: string, folder: string, env: Readonly<Record<string, string>>): FleetNode {
  let server: ServerProcess | undefined;
  async function end(signal: NodeJS.Signals): Promise<void> {
    const ending = server;
    server = undefined;
    ending?.kill(signal);
    await ending?.ended;
  }
  async function start(): Promise<void> {
    server = await startServerProcess({ code, folder, env });
  }
  onTestFinished(() => end("SIGKILL"));
  return {
    folder,
    get url() {
      return server?.url;
    },
    kill: () => end("SIGKILL"),
    start,
    async restart() {
      await end("SIGTERM");
      await start();
    },
    async stopAndVerify() {
      await end("SIGTERM");
      const { out, err } = await runCli(runStateCli, ["verify"], folder, "", env);
      return `${out}${err}`;
    },
  };
}

/** What one chat got to see. */
export interface FleetChat {
  readonly user: string;
  /** Where it was sent. */
  readonly url: string;
  /** 0 where no answer came. */
  status: number;
  /** Whether a data event of an answer was seen. */
  charged: boolean;
  done: boolean;
}

/** Chats of all users at all nodes in turn, until told to stop. */
export interface FleetLoad {
  readonly chats: readonly FleetChat[];
  /** Resolves when this many more chats than now have ended well, at all nodes or at one. */
  more(count: number, url?: string): Promise<void>;
  stop(): Promise<void>;
}

export interface FleetLoadOptions {
  readonly nodes: readonly Pick<FleetNode, "url">[];
  readonly tokens: ReadonlyMap<string, string>;
  readonly workersEach: number;
  /** Between two chats of a worker, in ms; default: none. */
  readonly pauseMs?: number;
}

/** Begins one chat for each worker, and the next at another node whenever one is over, however it ended. */
export function startFleetLoad({ nodes, tokens, workersEach, pauseMs = 0 }: FleetLoadOptions): FleetLoad {
  const chats: FleetChat[] = [];
  let turn = 0;
  let stopped = false;

  async function work(user: string, token: string): Promise<void> {
    while (!stopped) {
      const { url } = nodes[turn++ % nodes.length] ?? {};
      const chat = url === undefined ? undefined : await chatOnce(url, user, token);
      if (chat !== undefined) chats.push(chat);
      // A pause for those that fail at once: two cores serve all processes.
      const ms = chat?.done === true ? pauseMs : Math.max(pauseMs, 20);
      if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
    }
  }

  const running = Promise.all(
    [...tokens].flatMap(([user, token]) => Array.from({ length: workersEach }, () => work(user, token))),
  );
  return {
    chats,
    more(count, at) {
      const before = chats.length;
      return eventually(() => {
        const since = chats.slice(before);
        const whole = since.filter(({ done, url }) => done && (at === undefined || url === at)).length;
        if (whole < count) throw new Error(`only ${whole} of ${count} chats have ended: ${summaryOf(since)}`);
      }, 30_000);
    },
    async stop() {
      stopped = true;
      await running;
    },
  };
}

/** One chat; undefined where it was not sent, since nobody listened. */
export async function chatOnce(url: string, user: string, token: string): Promise<FleetChat | undefined> {
  const chat: FleetChat = { user, url, status: 0, charged: false, done: false };
  const body = { model: "sim-paced:400", stream: true, max_tokens: 12, messages: [{ role: "user", content: "Hi" }] };
  try {
    const client = await openStream(`${url}/v1/chat/completions`, { headers: bearer(token), body });
    chat.status = client.status;
    if (client.status !== 200) await client.ended;
    else
      for (let event = await client.nextEvent(); event !== undefined; event = await client.nextEvent()) {
        if (event.data === "[DONE]") chat.done = true;
        if (event.json?.choices !== undefined) chat.charged = true;
      }
  } catch (error) {
    // A killed process breaks connections; what had been seen by then is what counts.
    if ((error as NodeJS.ErrnoException).code === "ECONNREFUSED") return undefined;
  }
  return chat;
}

/** A token of each user, which all nodes take. */
export async function loginAll(
  { url }: Pick<FleetNode, "url">,
  users: readonly string[],
): Promise<Map<string, string>> {
  const tokens = new Map<string, string>();
  for (const user of users) {
    const answer = await post(`${url}/auth/login`, { username: user, password: alicePassword });
    const { token } = (await answer.json()) as { token?: string };
    if (token === undefined) throw new Error(`login of ${user} failed: ${answer.status}`);
    tokens.set(user, token);
  }
  return tokens;
}

/** How many chats ended how, for messages. */
export function summaryOf(chats: readonly FleetChat[]): string {
  const counts = new Map<string, number>();
  for (const { status, charged, done } of chats) {
    const how = `${status}${charged ? " charged" : ""}${done ? " done" : ""}`;
    counts.set(how, (counts.get(how) ?? 0) + 1);
  }
  return JSON.stringify(Object.fromEntries(counts));
}

/** What a user has used, as each node says it; fails while something is reserved. */
export async function usedAt(nodes: readonly Pick<FleetNode, "url">[], token: string): Promise<readonly number[][]> {
  return Promise.all(
    nodes.map(async ({ url }) => {
      const answer = await fetch(`${url}/auth/quota`, { headers: bearer(token) });
      expect(answer.status).toBe(200);
      const { limits } = (await answer.json()) as { limits: { used: number; reserved: number }[] };
      expect(limits.map(({ reserved }) => reserved)).toEqual(limits.map(() => 0));
      return limits.map(({ used }) => used);
    }),
  );
}

/** Stops one after another, and expects the folder of each to have what Redis has. */
export async function expectSameFolders(nodes: readonly FleetNode[]): Promise<void> {
  for (const node of nodes) expect(await node.stopAndVerify()).toBe("The users folder and Redis have the same.");
}
