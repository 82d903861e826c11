import { readdir, readFile, rename, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { alertTypes } from "../../src/events/catalogue.ts";
import { totpCode } from "../../src/identity/login/second-factor.ts";
import { jsonOf, logIn, refresh, type Tokens } from "../support/accounts.ts";
import { eventually } from "../support/eventually.ts";
import { startOtlpCollector } from "../support/otlp-collector.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, post, startProxy, userFile } from "../support/start-proxy.ts";

/**
 * Secrets that are there from the start. Each begins as nothing else does, so that a shortened one is found as well,
 * and looks like no key: what the log's redaction recognizes would hide that it had been logged.
 */
const planted = {
  password: "zqPassword of the user",
  wrongPassword: "zqWrong password, mistyped",
  newPassword: "zqNewPassword of the user",
  createdPassword: "zqCreated by an administrator",
  prompt: "zqPrompt that the user sends",
  answer: "zqAnswer of the model",
  upstreamKey: "zqUpstreamKey8Wm2Xc9Lr4",
  jwtSecret: "zqJwtKq70vWm2Xc9Lr4Tz8Yb1Nd6Pf3Hs",
  webhookSecret: "zqWebhookSecret2Xc9Lr4",
  nextWebhookSecret: "zqNextHook2Xc9Lr4Tz8Yb",
  webhookPath: "zqHookPath",
  redisPassword: "zqRedisPassword",
  kafkaPassword: "zqKafkaPassword",
  otlpHeader: "zqOtlpHeader",
  oidcSecret: "zqOidcClientSecret",
  metricsToken: "zqMetricsToken-4Tz8Yb",
  misplaced: "zqMisplaced-in-the-config",
};
type Planted = keyof typeof planted;
const beginningOf = (secret: string): string => /^zq\w{1,8}/.exec(secret)?.[0] ?? secret;

test("no secret is in a file, the log, a metric, an event, a trace, an alert or an error", async () => {
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  const collector = await startOtlpCollector();
  const alerts = await startReceiver();
  const configOf = (secretEnv: string): string => `
[alerts]
webhook_url = "${alerts.url}/${planted.webhookPath}"
secret_env = "${secretEnv}"
allow_private = true
events = ${JSON.stringify(alertTypes)}
[events.redis]
stream = "events"
url_env = "EVENTS_URL"
[events.kafka]
topic = "events"
sasl = "plain"
[telemetry]
otlp_endpoint = "${collector.url}"
[retry]
attempts = 1
[quota.tiers.basic]
limits = [{ metric = "tokens", per = "total", max = 100000 }]
[panel]
public_url = "http://127.0.0.1:1"
[[oidc]]
name = "work"
issuer = "http://127.0.0.1:1"
client_id = "proxy"
client_secret_env = "OIDC_SECRET"
`;
  const proxy = await startProxy({
    upstreamUrl: upstream.url,
    config: configOf("HOOK_SECRET"),
    configFile: true,
    users: {
      alice: userFile("alice", planted.password),
      boss: userFile("boss", planted.password, 'roles = ["admin"]\n'),
    },
    env: {
      DEEPSEEK_API_KEY: planted.upstreamKey,
      JWT_SECRETS: `k1:${planted.jwtSecret}`,
      METRICS_TOKEN: planted.metricsToken,
      HOOK_SECRET: planted.webhookSecret,
      NEXT_SECRET: planted.nextWebhookSecret,
      OIDC_SECRET: planted.oidcSecret,
      EVENTS_URL: `redis://:${planted.redisPassword}@127.0.0.1:1`,
      KAFKA_BROKERS: "127.0.0.1:1",
      KAFKA_USERNAME: "proxy",
      KAFKA_PASSWORD: planted.kafkaPassword,
      OTEL_EXPORTER_OTLP_HEADERS: `authorization=${planted.otlpHeader}`,
    },
  });
  onTestFinished(() => proxy.dispose());
  const { url } = proxy;

  /** Secrets that the proxy has made, by what they are. */
  const made = new Map<string, string>();
  /** Everything that was shown, by where, and what of it belongs there. */
  const shown: { readonly where: string; readonly text: string; readonly own: readonly Planted[] }[] = [];
  const keep = async (where: string, answering: Promise<Response>, own: readonly Planted[] = []): Promise<void> => {
    const answer = await answering;
    const headers = JSON.stringify(Object.fromEntries(answer.headers));
    shown.push({ where, text: `${answer.status} ${headers} ${await answer.text()}`, own });
  };
  const send = (method: string, path: string, credential: string, body?: object): Promise<Response> =>
    fetch(`${url}${path}`, {
      method,
      headers: { ...bearer(credential), ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  const noteTokens = (name: string, { token, refresh_token: refreshToken }: Tokens): void => {
    made.set(`access token ${name}`, token.split(".")[2] ?? "");
    made.set(`refresh token ${name}`, refreshToken.slice(4));
  };

  const boss = await logIn(proxy, "boss", planted.password);
  noteTokens("of boss", boss);
  const feed = await openStream(`${url}/admin/events`, { headers: bearer(boss.token) });

  // Logins.
  const alice = await logIn(proxy, "alice", planted.password);
  noteTokens("of alice", alice);
  noteTokens("refreshed", (await refresh(proxy, alice.refresh_token)).body);
  const tries = [
    { username: "alice", password: planted.wrongPassword },
    { username: "nobody", password: planted.password },
    { username: planted.password, password: planted.wrongPassword },
    { username: "alice", password: [planted.password], [planted.wrongPassword]: 1 },
  ];
  for (const body of tries) await keep("a failed login", post(`${url}/auth/login`, body));
  const stolen = await logIn(proxy, "alice", planted.password, "another program");
  noteTokens("of a session that ends", stolen);
  const changedToken = `${stolen.refresh_token.slice(0, -3)}abc`;
  await keep("a changed refresh token", post(`${url}/auth/refresh`, { refresh_token: changedToken }));
  await keep("a changed access token", send("GET", "/auth/quota", `${alice.token}x`));

  // Chats.
  const chat = { model: "m", messages: [{ role: "user", content: planted.prompt }] };
  const quoting = `the key ${planted.upstreamKey} for ${planted.prompt}`;
  const ways: Readonly<Record<string, (call: Call) => unknown>> = {
    complete: async (call) => {
      await call.delta(planted.answer);
      await call.finish();
    },
    cut: async (call) => {
      await call.delta(planted.answer);
      call.reset();
    },
    "an error event": async (call) => {
      await call.delta(planted.answer);
      await call.event({ error: { message: quoting, code: planted.upstreamKey } });
      call.end();
    },
    "no JSON": (call) =>
      call.send(`data: ${quoting}\n\n`).then(() => {
        call.end();
      }),
    "status 400": (call) => {
      call.respond(400, { error: { message: quoting, type: quoting, code: quoting } });
    },
    "status 500": (call) => {
      call.respond(500, quoting);
    },
    "status 401": (call) => {
      call.respond(401, { error: { message: quoting } }, { "x-key": planted.upstreamKey });
    },
  };
  for (const [way, play] of Object.entries(ways)) {
    const answering = openStream(`${url}/v1/chat/completions`, {
      headers: bearer(alice.token),
      body: { ...chat, stream: true },
    });
    await play(await nextChat(upstream));
    const client = await answering;
    await client.ended;
    shown.push({ where: `a chat: ${way}`, text: client.text, own: ["answer", "prompt"] });
  }
  await keep(
    "a chat that is invalid",
    post(`${url}/v1/chat/completions`, { ...chat, max_tokens: planted.prompt }, bearer(alice.token)),
  );

  // Keys, codes and what administrators do.
  const terms = { name: "signed", require_signature: true };
  const key = await jsonOf<{ id: string; key: string; signing_secret: string }>(
    send("POST", "/auth/keys", alice.token, terms),
  );
  made.set("API key", key.body.key.slice(4)).set("signing secret", key.body.signing_secret.slice(4));
  await keep("an unsigned request", send("GET", "/auth/quota", key.body.key));
  await keep("a wrong key", send("GET", "/auth/quota", `${key.body.key.slice(0, -3)}abc`));
  await keep("the user's keys", send("GET", "/auth/keys", alice.token));
  await keep("a key's end", send("DELETE", `/auth/keys/${key.body.id}`, alice.token));
  const codes = await jsonOf<{ codes: string[] }>(
    send("POST", "/admin/codes", boss.token, { name: "spring", metric: "tokens", per: "total", amount: 5, count: 2 }),
  );
  for (const [index, code] of codes.body.codes.entries())
    made.set(`code ${index}`, code.slice(9)).set(`plain code ${index}`, code.slice(9).replaceAll("-", ""));
  for (let i = 0; i < 2; i++)
    await keep("a code redeemed", send("POST", "/codes/redeem", alice.token, { code: codes.body.codes[0] }));
  await keep(
    "a user",
    send("POST", "/admin/users", boss.token, { username: "dora", password: planted.createdPassword }),
  );
  await keep(
    "a bad user",
    send("POST", "/admin/users", boss.token, { username: "d", password: [planted.createdPassword] }),
  );
  await keep("a bad change", send("PATCH", "/admin/users/dora", boss.token, { password: planted.createdPassword }));
  const reset = await jsonOf<{ password: string }>(send("POST", "/admin/users/dora/reset-password", boss.token));
  made.set("one-time password", reset.body.password);
  const change = { current_password: planted.password, new_password: planted.newPassword };
  await keep(
    "a bad password",
    send("POST", "/auth/password", alice.token, { ...change, current_password: planted.wrongPassword }),
  );
  const changed = await jsonOf<Tokens>(send("POST", "/auth/password", alice.token, change));
  noteTokens("after the change", changed.body);

  // A second factor, and a login through an issuer that is down.
  const factor = "/panel/api/second-factor";
  const { body: otp } = await jsonOf<{ secret: string }>(send("POST", `${factor}/secret`, changed.body.token));
  const code = totpCode(otp.secret, Math.floor(Date.now() / 30_000));
  const enabled = await jsonOf<{ recovery_codes: string[] }>(
    send("POST", factor, changed.body.token, { secret: otp.secret, otp: code }),
  );
  for (const recovery of enabled.body.recovery_codes.slice(0, 2)) made.set(`recovery code ${recovery[0]}`, recovery);
  await keep(
    "a login without its code",
    post(`${url}/auth/login`, { username: "alice", password: planted.newPassword }),
  );
  await keep("an issuer that is down", fetch(`${url}/panel/api/oidc/work/start`, { redirect: "manual" }));

  // Reloads: of another secret, and of files that are invalid.
  const texts = {
    valid: configOf("NEXT_SECRET"),
    "with keys": `${configOf("NEXT_SECRET")}[[providers]]\nname = "b"\nkind = "openai"\napi_key = "${planted.misplaced}"\nbase_url = "https://u:${planted.misplaced}@"\n`,
    "with a key for a name": `${configOf(planted.misplaced)}[auth]\njwt_secret = "${planted.misplaced}"\n`,
    "with an open quote": `${configOf("NEXT_SECRET")}[auth]\njwt_secret = "${planted.misplaced}\n`,
  };
  for (const [what, text] of Object.entries(texts)) {
    const path = join(proxy.folder, "config.toml");
    await writeFile(`${path}.new`, proxy.configText(text));
    await rename(`${path}.new`, path);
    await keep(`a config ${what}`, send("POST", "/admin/config/reload", boss.token));
    await keep(`the health after a config ${what}`, fetch(`${url}/healthz`));
  }

  // Everything that operators see.
  const pages = "audit codes config login-locks overview providers requests risk users users/alice users/alice/keys";
  for (const page of pages.split(" ")) await keep(`/admin/${page}`, send("GET", `/admin/${page}`, boss.token));
  for (const page of ["behaviour", "sessions"])
    await keep(`alice's ${page}`, send("GET", `/admin/users/alice/${page}`, boss.token));
  await keep("/metrics", send("GET", "/metrics", planted.metricsToken));
  await keep("/metrics refused", send("GET", "/metrics", `${planted.metricsToken}x`));
  await keep("/readyz", fetch(`${url}/readyz`));
  await keep("the alert's test", send("POST", "/admin/alerts/test", boss.token));
  await eventually(() => {
    expect(feed.text).toContain('"alerts.tested"');
    expect(alerts.bodies.join("")).toContain('"alerts.test"');
  });
  await proxy.stop();
  await feed.ended;

  shown.push({ where: "/admin/events", text: feed.text, own: [] });
  shown.push({ where: "alerts", text: alerts.bodies.join("\n"), own: [] });
  shown.push({ where: "traces", text: collector.text, own: [] });
  for (const line of proxy.logLines) shown.push({ where: "the log", text: line, own: [] });
  for (const entry of await readdir(proxy.folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name === "config.toml") continue;
    const where = join(entry.parentPath, entry.name).slice(proxy.folder.length);
    shown.push({ where, text: await readFile(join(entry.parentPath, entry.name), "latin1"), own: [] });
  }

  const names = shown.map(({ where }) => where).join("\n");
  for (const part of ["/logs/spool/", "/logs/users/alice/", "/logs/audit/", "/logs/requests/", "alerts-undelivered"])
    expect(names).toContain(part);
  const spooled = shown.filter(({ where }) => where.includes("/logs/spool/")).map(({ text }) => text);
  expect(spooled.join("")).toContain("chat.finished");
  for (const { where, text } of shown)
    if (where.startsWith("/admin/") && where !== "/admin/events") expect(text, where).toMatch(/^200 /);
  for (const type of ["chat.finished", "login.failed", "config.reloaded", "config.rejected", "admin.changed"])
    expect(feed.text).toContain(`event: ${type}\n`);
  expect(collector.spans.length).toBeGreaterThan(7);
  for (const secret of made.values()) expect(secret.length).toBeGreaterThan(10);
  // Codes are computed from it: it is in the user's own file, and nowhere else.
  const holders = shown.filter(({ text }) => text.includes(otp.secret)).map(({ where }) => where);
  expect(holders).toEqual(["/users/alice.toml"]);
  const leaks = shown.flatMap(({ where, text, own }) => [
    ...Object.entries(planted)
      .filter(([name, secret]) => !own.includes(name as Planted) && text.includes(beginningOf(secret)))
      .map(([name]) => `${name} in ${where}: ${text}`),
    ...[...made].filter(([, secret]) => text.includes(secret)).map(([name]) => `${name} in ${where}: ${text}`),
  ]);
  expect(leaks).toEqual([]);
}, 60_000);

type Call = Awaited<ReturnType<ScriptedUpstream["next"]>>;

/** The next chat that the provider gets. Others ask for its models. */
async function nextChat(upstream: ScriptedUpstream): Promise<Call> {
  const call = await upstream.next();
  if (call.method === "POST") return call;
  call.respond(404, `no models for the key ${planted.upstreamKey}`);
  return nextChat(upstream);
}

/** A receiver of alerts that takes all but failed logins, which so become dead letters. */
async function startReceiver(): Promise<{ readonly url: string; readonly bodies: readonly string[] }> {
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString();
      bodies.push(body);
      response.writeHead(body.includes('"login.failed"') ? 400 : 204).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies };
}
