import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { answerOf } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, post, startProxy, upstreamKey, userFile, type RunningProxy } from "../support/start-proxy.ts";

/** Each begins like nothing else does, so that a piece of it gives it away as well. */
const secret = {
  password: "pwQz-the-user's-own-password",
  wrongPassword: "wpQz-a-password-mistyped",
  prompt: "prQz what is told to the model",
  answer: "anQz what the model tells",
  jwtSecret: "jsQz7Kq0vWm2Xc9Lr4Tz8Yb1Nd6Pf3Hs",
  metricsToken: "mtQz-the-token-for-metrics",
  otherHeader: "hdQz-a-cookie-of-the-client",
};
const pieces = (text: string): string => text.slice(0, 4);
const keyPiece = upstreamKey.slice(0, 10);

type Call = Awaited<ReturnType<ScriptedUpstream["next"]>>;

describe("a secret", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;
  /** Everything that clients were sent, with its head, by what they did. */
  const answers = new Map<string, string>();
  const logLines: string[] = [];
  /** Everything that proxies have left in their folders, by path. */
  const files = new Map<string, string>();

  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    await withProxy(async () => {
      await logInBadly();
      await askBadly();
      await lookAround();
    });
    await haveUpstreamFail();
  }, 120_000);

  afterAll(() => upstream.close());

  /** A proxy of its own for each, because one remembers what its provider has done. */
  async function withProxy(work: () => Promise<void>): Promise<void> {
    proxy = await startProxy({
      upstreamUrl: upstream.url,
      users: { alice: userFile("alice", secret.password, "max_parallel = 4\n") },
      env: { JWT_SECRETS: `k1:${secret.jwtSecret}`, METRICS_TOKEN: secret.metricsToken },
      config: "[timeouts]\nfirst_event_seconds = 0.3\nidle_seconds = 0.3\n[retry]\nattempts = 1\n",
    });
    token = await proxy.login("alice", secret.password);
    await work();
    await proxy.stop();
    logLines.push(...proxy.logLines);
    for (const folder of ["logs", "users"]) await readInto(files, join(proxy.folder, folder));
    await proxy.dispose();
  }

  const keep = async (what: string, answer: Promise<Response>): Promise<void> => {
    const { status, headers, body } = await answerOf(await answer);
    answers.set(what, `${status} ${JSON.stringify(headers)} ${body}`);
  };
  const logIn = (body: unknown): Promise<Response> => post(`${proxy.url}/auth/login`, body);
  const body = { model: "deepseek-flash", messages: [{ role: "user", content: secret.prompt }] };
  const ask = (more: object = {}, headers: Record<string, string> = bearer(token)): Promise<Response> =>
    post(`${proxy.url}/v1/chat/completions`, { ...body, ...more }, { ...headers, cookie: secret.otherHeader });

  async function logInBadly(): Promise<void> {
    const { password, wrongPassword } = secret;
    await keep("wrong password", logIn({ username: "alice", password: wrongPassword }));
    await keep("unknown user", logIn({ username: "nobody", password }));
    await keep("password as name", logIn({ username: password, password }));
    await keep("password of a wrong type", logIn({ username: "alice", password: [password] }));
    await keep("password as key", logIn({ username: "alice", [password]: password }));
    await keep("password past the limit", logIn({ username: "alice", password: password.repeat(500) }));
    const headers = { "content-type": "application/json" };
    for (const text of [`{"password":"${password}`, `"${password}"`]) {
      await keep(
        `broken: ${text.slice(0, 2)}`,
        fetch(`${proxy.url}/auth/login`, { method: "POST", headers, body: text }),
      );
    }
  }

  async function askBadly(): Promise<void> {
    await keep("no token", ask({}, {}));
    await keep("changed token", ask({}, bearer(`${token}x`)));
    await keep("token of another kind", ask({}, { authorization: `Basic ${token}` }));
    await keep("token in the path", fetch(`${proxy.url}/${token}?token=${token}`));
    await keep("token as request id", ask({ model: 1 }, { ...bearer(token), "x-request-id": `${token} ` }));
    await keep("prompt where a role should be", ask({ messages: [{ role: { text: secret.prompt } }] }));
    await keep("prompt for a number", ask({ max_tokens: secret.prompt }));
    await keep("wrong metrics token", fetch(`${proxy.url}/metrics`, { headers: bearer(`${secret.metricsToken}x`) }));
  }

  async function haveUpstreamFail(): Promise<void> {
    const says = `Invalid API key ${upstreamKey} for ${upstreamKey}`;
    const ways: Record<string, (call: Call) => unknown> = {
      "400 with the key": (call) => {
        call.respond(400, { error: { message: says, code: "invalid_request_error" } });
      },
      "400 with the key as code": (call) => {
        call.respond(400, { error: { message: "no", code: upstreamKey, type: upstreamKey } });
      },
      "401 as text": (call) => {
        call.respond(401, says);
      },
      "429 with the key": (call) => {
        call.respond(429, { error: says }, { "retry-after": upstreamKey, "x-key": upstreamKey });
      },
      "500 as HTML": (call) => {
        call.respond(500, `<html>${says}</html>`, { "content-type": "text/html" });
      },
      "200 that is JSON": (call) => {
        call.respond(200, { choices: [{ message: { content: secret.answer } }] });
      },
      redirect: (call) => {
        call.respond(302, says, { location: `http://127.0.0.1/${upstreamKey}` });
      },
      "first event an error": (call) => call.event({ error: { message: says, code: upstreamKey } }),
      "first event no JSON": (call) => call.send(`data: ${upstreamKey} ${secret.answer}\n\n`),
      "first event broken JSON": (call) => call.send(`data: {"content":"${secret.answer}" ${secret.answer}\n\n`),
      "later event an error": async (call) => {
        await call.delta(secret.answer);
        await call.event({ error: { message: says } });
      },
      "later event no JSON": async (call) => {
        await call.delta(secret.answer);
        await call.send(`data: ${upstreamKey}\n\n`);
      },
      "broken off": async (call) => {
        await call.delta(secret.answer);
        call.reset();
      },
      "first event named error": (call) =>
        call.send(`event: error\ndata: ${JSON.stringify({ message: says, code: "x" })}\n\n`),
      silence: (call) => {
        call.head();
      },
      complete: async (call) => {
        await call.delta(secret.answer);
        await call.finish();
      },
    };
    for (const [what, fail] of Object.entries(ways)) {
      for (const stream of [false, true]) await withProxy(() => askOnce(`${what}, stream ${stream}`, stream, fail));
    }
  }

  async function askOnce(what: string, stream: boolean, fail: (call: Call) => unknown): Promise<void> {
    const url = `${proxy.url}/v1/chat/completions`;
    const opening = openStream(url, { headers: bearer(token), body: { ...body, stream } });
    const call = await upstream.next();
    await fail(call);
    const client = await opening;
    await client.ended;
    answers.set(what, `${client.status} ${JSON.stringify(client.headers)} ${client.text}`);
    call.end();
    await keep(`metrics after: ${what}`, fetch(`${proxy.url}/metrics`));
  }

  async function lookAround(): Promise<void> {
    const models = keep("models", fetch(`${proxy.url}/v1/models`, { headers: bearer(token) }));
    (await upstream.next()).respond(401, `Bad key ${upstreamKey}`);
    await models;
    for (const path of ["/metrics", "/healthz", "/livez", "/openapi.json", "/docs"])
      await keep(path, fetch(`${proxy.url}${path}`));
    await keep("quota", fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) }));
  }

  const all = [...Object.values(secret).map(pieces), keyPiece];

  it("is in none of the log's lines", () => {
    expect(logLines.length).toBeGreaterThan(100);
    for (const line of logLines) {
      for (const piece of [...all, token, token.split(".")[2] ?? ""]) expect(line).not.toContain(piece);
    }
  });

  it("is in no file of logs/ or users/", () => {
    expect([...files.keys()].filter((path) => /logs.users.alice.*jsonl$/.test(path)).length).toBeGreaterThan(20);
    for (const [path, text] of files) {
      for (const piece of [...all, token]) expect(text, path).not.toContain(piece);
    }
  });

  it("is in no answer but the user's own chat, where only the model's words are", () => {
    expect(answers.size).toBeGreaterThan(45);
    for (const [what, text] of answers) {
      const own = /^(complete|later event|broken off)/.test(what) ? [pieces(secret.answer)] : [];
      for (const piece of [...all, token]) {
        if (!own.includes(piece)) expect(text, what).not.toContain(piece);
      }
    }
    expect(answers.get("complete, stream true")).toContain(secret.answer);
    expect(answers.get("complete, stream false")).toContain(secret.answer);
    expect(answers.get("400 with the key, stream true")).toContain("Invalid API key [key] for [key]");
  });

  it("is told to the provider alone: the key and the prompt, and nothing else of the client", async () => {
    let sent = "";
    await withProxy(async () => {
      const chat = ask();
      const call = await upstream.next();
      await call.finish();
      await chat;
      sent = `${call.url} ${call.rawHeaders.join(" ")} ${call.rawBody.toString()}`;
    });
    expect(sent).toContain(upstreamKey);
    expect(sent).toContain(secret.prompt);
    for (const [name, text] of Object.entries(secret)) if (name !== "prompt") expect(sent).not.toContain(pieces(text));
    expect(sent).not.toContain(token);
  });
});

/** Reads all files below a folder. */
async function readInto(files: Map<string, string>, folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries.filter((one) => one.isFile())) {
    const path = join(entry.parentPath, entry.name);
    files.set(path, await readFile(path, "latin1"));
  }
}
