import { mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { runDoctorCli } from "../../src/cli/doctor-commands.ts";
import { runCli } from "../support/cli.ts";
import { startForwardProxy } from "../support/forward-proxy.ts";
import { clientSecret, startIssuer } from "../support/oidc-issuer.ts";
import { tempDir } from "../support/temp-dir.ts";

const key = "canary-key-5c1f0a9e";

/** A provider that takes one key. */
async function startProvider(date?: string): Promise<number> {
  const server = createServer((request, response) => {
    if (date !== undefined) response.setHeader("date", date);
    response.writeHead(request.headers.authorization === `Bearer ${key}` && request.url === "/models" ? 200 : 401);
    response.end('{"data":[]}');
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function doctor(config: string, env: Record<string, string> = {}, argv: readonly string[] = []) {
  const folder = tempDir();
  await mkdir(join(folder, "users"));
  await writeFile(join(folder, "config.toml"), config);
  const result = await runCli(runDoctorCli, argv, folder, "", env);
  expect(result.out + result.err).not.toContain("canary");
  expect(await readdir(join(folder, "users"))).toEqual([]);
  return { ...result, lines: result.out.split("\n") };
}

const provider = (port: number) =>
  `[[providers]]\nname = "one"\nkind = "deepseek"\nbase_url = "http://127.0.0.1:${port}"\nmodels = ["*"]\n`;

test("what works is ok, and nothing is left behind", async () => {
  const port = await startProvider();
  const { code, lines } = await doctor(provider(port), { DEEPSEEK_API_KEY: key, KAFKA_BROKERS: `127.0.0.1:${port}` });
  expect(lines.filter((line) => line.startsWith("FAIL"))).toEqual([]);
  expect(lines).toContain(`ok    provider one, key 0: 127.0.0.1:${port} answers (200)`);
  expect(lines).toContain(`ok    clock: as at 127.0.0.1:${port}`);
  expect(lines).toContain(`ok    Kafka 127.0.0.1:${port}: it accepts connections`);
  expect(lines.at(-1)).toBe("nothing fails");
  expect(code).toBe(0);
});

test("a provider is asked through its forward proxy", async () => {
  const port = await startProvider();
  const config = (url: string) =>
    `${provider(port).replace("127.0.0.1", "provider.invalid")}forward_proxy_url = "${url}"\n`;
  const env = { DEEPSEEK_API_KEY: key };
  const { lines } = await doctor(config((await startForwardProxy(port)).url), env);
  expect(lines).toContain(`ok    provider one, key 0: provider.invalid:${port} answers (200)`);
  const { out } = await doctor(config((await startForwardProxy(port, 407)).url), env);
  expect(out).toMatch(/can't be reached: the forward proxy answered CONNECT with 407\n +fix: .*forward_proxy_url/);
});

test.each([
  ["a config that is none", "[server]\nprot = 1\n", {}, /^FAIL {2}config: .*prot/m],
  [
    "a provider without a key beside one that has one",
    `${provider(9)}api_key_env = "NO_KEY"\n${provider(9).replace('"one"', '"two"')}`,
    { DEEPSEEK_API_KEY: key },
    /^FAIL {2}provider one: it has no key, and is left out\n +fix: .*NO_KEY/m,
  ],
  ["a provider that is away", provider(9), { DEEPSEEK_API_KEY: key }, /^FAIL {2}provider one, key 0: .*ECONNREFUSED/m],
  ["a short secret", "", { JWT_SECRETS: "k1:canary" }, /^FAIL {2}JWT_SECRETS: .*\n +fix: .*openssl/m],
  ["Redis without an address", '[state]\nbackend = "redis"\n', {}, /^FAIL {2}Redis: .*REDIS_URL.*\n +fix: /m],
  ["brokers that are none", "", { KAFKA_BROKERS: "here" }, /^FAIL {2}Kafka here: expected HOST:PORT\n +fix: /m],
  [
    "a folder that is a file",
    '[storage]\nlogs_dir = "config.toml/logs"\n',
    {},
    /^FAIL {2}disk of .*logs: .*\n +fix: /m,
  ],
])("%s fails, with what to do", async (_name, config, env, expected) => {
  const { code, out } = await doctor(config, env);
  expect(out).toMatch(expected);
  expect(out).toMatch(/check(s)? fail(s)?$/);
  expect(code).toBe(1);
});

test("a damaged secret that a start has made fails, with what to do, and is not shown", async () => {
  const folder = tempDir();
  await mkdir(join(folder, "users", ".keys"), { recursive: true });
  await writeFile(join(folder, "users", ".keys", "jwt"), "k1:canary");
  const { code, out } = await runCli(runDoctorCli, [], folder, "", {});
  expect(out).toMatch(/^FAIL {2}JWT_SECRETS: .*jwt: the secret of kid "k1" has 6 bytes.*\n +fix: restore /m);
  expect(out).not.toContain("canary");
  expect(code).toBe(1);
});

test("where no provider has a key, the simulator responds: a warning", async () => {
  const { code, out } = await doctor(provider(9), {});
  expect(out).toMatch(
    /^warn {2}provider one: it has no key: the built-in simulator responds\n +fix: .*DEEPSEEK_API_KEY/m,
  );
  expect(code).toBe(0);
});

test("a refused key fails without being shown; so does a clock that is far off", async () => {
  const refusing = await doctor(provider(await startProvider()), { DEEPSEEK_API_KEY: `${key}x` });
  expect(refusing.out).toMatch(/refuses the key \(401\)\n +fix: set a valid key/);
  const off = await doctor(provider(await startProvider("Thu, 01 Jan 2026 00:00:00 GMT")), { DEEPSEEK_API_KEY: key });
  expect(off.out).toMatch(/^FAIL {2}clock: \d+ s apart .*\n +fix: .*NTP/m);
  expect([refusing.code, off.code]).toEqual([1, 1]);
});

test("without providers the simulator answers, which is worth a word", async () => {
  const { code, out } = await doctor("");
  expect(out).toMatch(/^warn {2}providers: none: the built-in simulator answers/m);
  expect(code).toBe(0);
});

test("wrong usage is 2", async () => {
  expect((await doctor("", {}, ["please"])).code).toBe(2);
});

describe("an identity provider", () => {
  const oidc = (issuer: string) =>
    `[panel]\npublic_url = "http://127.0.0.1:1"\n[[oidc]]\nname = "corp"\nissuer = "${issuer}"\nclient_id = "proxy"\nclient_secret_env = "CORP_SECRET"\n`;

  test("is ok with its secret and its document; without the secret the variable is named", async () => {
    const issuer = await startIssuer();
    issuer.open("http://127.0.0.1:1/panel/api/oidc/corp/callback");
    const fine = await doctor(oidc(issuer.url), { CORP_SECRET: clientSecret });
    expect(fine.lines).toContain(`ok    oidc corp: ${issuer.url} has a discovery document that fits`);
    expect([fine.code, fine.out.includes(clientSecret)]).toEqual([0, false]);
    const without = await doctor(oidc(issuer.url));
    expect(without.out).toMatch(/^FAIL {2}oidc corp: .*CORP_SECRET is empty\n +fix: set CORP_SECRET/m);
    expect(without.code).toBe(1);
  });

  test("that is away is one sentence, with the reason", async () => {
    const gone = await startIssuer({ keep: true });
    await gone.close();
    const { code, lines } = await doctor(oidc(gone.url), { CORP_SECRET: clientSecret });
    const address = `${gone.url}/.well-known/openid-configuration`;
    const at = lines.indexOf(
      `FAIL  oidc corp: ${address} can't be read: connect ECONNREFUSED ${new URL(gone.url).host}`,
    );
    expect(lines[at + 1]).toBe("      fix: check issuer, DNS and the firewall of this machine");
    expect([at >= 0, code]).toEqual([true, 1]);
  });

  test("that names itself otherwise is one sentence, with the line to write", async () => {
    const issuer = await startIssuer();
    issuer.open("http://127.0.0.1:1/panel/api/oidc/corp/callback");
    const other = issuer.url.replace("127.0.0.1", "localhost");
    const { code, lines } = await doctor(oidc(other), { CORP_SECRET: clientSecret });
    const found = `the provider at ${other} calls itself "${issuer.url}", and issuer must be exactly that`;
    const at = lines.indexOf(`FAIL  oidc corp: ${found}`);
    expect(lines[at + 1]).toBe(`      fix: write issuer = "${issuer.url}" if that is the provider you mean`);
    expect([at >= 0, code]).toEqual([true, 1]);
  });

  test("at an address without a discovery document is one sentence, with what came", async () => {
    const issuer = await startIssuer();
    issuer.open("http://127.0.0.1:1/panel/api/oidc/corp/callback");
    const { code, out } = await doctor(oidc(`${issuer.url}/other`), { CORP_SECRET: clientSecret });
    const address = `${issuer.url}/other/.well-known/openid-configuration`;
    expect(out).toContain(
      `FAIL  oidc corp: ${address} answers with HTTP 404, where JSON is expected\n      fix: write`,
    );
    expect(code).toBe(1);
  });
});
