import { describe, expect, it } from "vitest";
import type { ConfigError } from "../../src/config/load.ts";
import { parseConfig } from "../../src/config/load.ts";
import { problemsOf } from "./support.ts";

describe("what is wrong with a config", () => {
  it("is told all at once, with path, expected and got, and the file in each line", () => {
    const text = `
      [server]
      port = "8080"
      [storage]
      durability = "always"
      [concurrency]
      max_parallel = 0
      [limit]
      x = 1
      [[providers]]
      name = "Deep Seek"
      kind = "deepseek"
      models = []
    `;
    let message = "";
    try {
      parseConfig(text, "my.toml");
    } catch (error) {
      message = (error as ConfigError).message;
    }
    expect(message.split("\n").sort()).toEqual([
      "my.toml: concurrency.max_parallel: expected at least 1, got number 0 (line 7)",
      'my.toml: limit: unknown key; did you mean "limits"? (line 8)',
      "my.toml: providers.0.models: expected at least 1 entries, got a list of 0 (line 13)",
      'my.toml: providers.0.name: expected lower-case letters, digits, - and _, got text "Deep Seek" (line 11)',
      'my.toml: server.port: expected a number, got text "8080" (line 3)',
      'my.toml: storage.durability: expected one of "interval", "strict", got text "always" (line 5)',
    ]);
  });

  it.each([
    ["[server]\nport = 80.5", "server.port: expected a whole number, got number 80.5"],
    ["[server]\nport = true", "server.port: expected a number, got boolean true"],
    ["[server]\nhost = 2026-01-01", "server.host: expected text, got the date 2026-01-01"],
    ["[server]\ntrust_proxy = 1", "server.trust_proxy: expected a list, got number 1"],
    ["[models]\naliases = []", "models.aliases: expected a table, got a list of 0"],
    ['[server]\nhost = "a\\u0000b"', 'server.host: expected text without the character \\u0000, got text "a\\u0000b"'],
    [
      '[storage]\nusers_dir = "\\u0000"',
      'storage.users_dir: expected text without the character \\u0000, got text "\\u0000"',
    ],
    [
      '[storage]\nlogs_dir = "\\u0000"',
      'storage.logs_dir: expected text without the character \\u0000, got text "\\u0000"',
    ],
    [
      '[[providers]]\nname = "a"\nkind = "openai"\nbase_url = "http://127.0.0.1:1"\nmodels = ["*"]\napi_key_file = "\\u0000"',
      "providers.0.api_key_file: expected text without the character \\u0000, got text of 1 characters",
    ],
    ["server = 1", "server: expected a table, got number 1"],
    ["[server]\nport = nan", "server.port: expected a number, got nan"],
    ["[server]\nhost = 9007199254740993", "server.host: expected text, got number 9007199254740993"],
    [
      "[server]\nport = 9007199254740993",
      "server.port: expected a number from -9007199254740991 to 9007199254740991, got number 9007199254740993",
    ],
    [
      "[retry]\nattempts = -9223372036854775808",
      "retry.attempts: expected a number from -9007199254740991 to 9007199254740991, got number -9223372036854775808",
    ],
    ["metrics = 2026-11-27", "metrics: expected a table, got the date 2026-11-27"],
    ["[risk]\nsignals = 12:00:00", "risk.signals: expected a table, got the date 12:00:00.000"],
    [
      "[quota.tiers]\nbasic = 2026-11-27T09:00:00Z",
      "quota.tiers.basic: expected a table, got the date 2026-11-27T09:00:00.000Z",
    ],
    ["[models]\naliases = 2026-11-27", "models.aliases: expected a table, got the date 2026-11-27"],
    ["[rate_limit]\nrequests_per_second = 0", "rate_limit.requests_per_second: expected more than 0, got number 0"],
    ['[quota]\ncut_midstream = ["all"]', 'quota.cut_midstream.0: expected one of "tokens", "cost", got text "all"'],
    [
      '[admin]\nallow = ["10.0.0.300"]',
      'admin.allow.0: expected an IP address, or a network such as 10.0.0.0/8 or 2001:db8::/32, got text "10.0.0.300"',
    ],
  ])("%j: %s", (text, problem) => {
    expect(problemsOf(text)).toEqual([problem]);
  });

  it("names the provider whose name is taken", () => {
    const provider = '[[providers]]\nname = "a"\nkind = "deepseek"\nmodels = ["*"]\n';
    expect(problemsOf(provider + provider)).toEqual([
      'providers.1.name: expected another name than providers.0 has, got text "a"',
    ]);
  });

  it("is not led astray by keys that every object has", () => {
    expect(problemsOf("[constructor]\n[server]\ntoString = 1").sort()).toEqual([
      "constructor: unknown key",
      "server.toString: unknown key",
    ]);
  });
});

describe("an unknown key", () => {
  it.each([
    ["[sever]", 'sever: unknown key; did you mean "server"?'],
    ["[server]\nprot = 1", 'server.prot: unknown key; did you mean "port"?'],
    ["[quota.tiers.basic]\nrequest = 1", 'quota.tiers.basic.request: unknown key; did you mean "requests"?'],
    [
      '[[providers]]\nname = "a"\nkind = "deepseek"\nmodels = ["*"]\ntimeouts = { idle_second = 1 }',
      'providers.0.timeouts.idle_second: unknown key; did you mean "idle_seconds"?',
    ],
    [
      '[quota.tiers.basic]\nlimits = [{ metric = "cost", per = "day", max = 1, curency = "CNY" }]',
      'quota.tiers.basic.limits.0.curency: unknown key; did you mean "currency"?',
    ],
    ["[server]\nwhatever = 1", "server.whatever: unknown key"],
  ])("%j: %s", (text, problem) => {
    expect(problemsOf(text)).toEqual([problem]);
  });
});

it("takes a number of tokens for no secret", () => {
  expect(problemsOf("[quota.tiers.demo]\ntokens = 5")[0]).toMatch(/^quota\.tiers\.demo\.tokens: unknown key/);
});

describe("a secret in the file", () => {
  const secret = "sk-0123456789abcdef";
  const provider = `[[providers]]\nname = "a"\nkind = "deepseek"\nmodels = ["*"]\n`;

  it.each([
    [`${provider}api_key = "${secret}"`, "providers.0.api_key"],
    [`[auth]\njwt_secrets = "${secret}"`, "auth.jwt_secrets"],
    [`[auth]\njwt_signing_key = "${secret}"`, "auth.jwt_signing_key"],
    [`deepseek_api_key = "${secret}"`, "deepseek_api_key"],
    [`redis_url = "redis://:${secret}@host"`, "redis_url"],
  ])("is refused with the place where it belongs: %s", (text, path) => {
    const problems = problemsOf(text);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(
      new RegExp(`^${path.replaceAll(".", "\\.")}: secrets don't belong in this file; set an environment`),
    );
    expect(problems.join()).not.toContain(secret);
  });

  it.each([
    [`${provider}api_key_env = "${secret}"`, "providers.0.api_key_env: expected the name of an environment variable"],
    [`${provider}base_url = "ftp://user:${secret}@host"`, "providers.0.base_url: expected a valid url"],
    [
      `${provider}forward_proxy_url = "socks5://a:${secret}@host"`,
      "providers.0.forward_proxy_url: expected a valid url",
    ],
    ...[`http://a:${secret}@host/path`, `http://a:${secret}%zz@host`, `http://host?key=${secret}`].map((url) => [
      `${provider}forward_proxy_url = "${url}"`,
      "providers.0.forward_proxy_url: expected http://HOST:PORT, with NAME:PASSWORD@ before the host",
    ]),
  ])("is not repeated where it stands in the place of something else: %s", (text, problem) => {
    const problems = problemsOf(text);
    expect(problems[0]).toContain(problem);
    expect(problems.join()).not.toContain(secret);
  });
});
