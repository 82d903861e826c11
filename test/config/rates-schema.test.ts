import { describe, expect, it } from "vitest";
import { ConfigError, parseConfig } from "../../src/config/load.ts";
import { problemsOf } from "./support.ts";

const rule = (text: string) => `[[limits]]\nby = "user"\nper = "minute"\nmax = 10\n${text}\n`;
const bare = (text: string) => `[[limits]]\nper = "minute"\n${text}\n`;

describe("[[limits]]", () => {
  it("takes any number of rules of any scope, one name each", () => {
    expect(problemsOf("")).toEqual([]);
    expect(problemsOf(rule("") + rule('name = "tight"\nburst = 1'))).toEqual([]);
    expect(problemsOf(bare('by = ["user", "model"]\nmax = 5\ntiers = ["basic"]\ngroups = ["any"]'))).toEqual([]);
    expect(problemsOf(bare('by = "provider"\nmetric = "output_tokens"\nmax = 1000000000'))).toEqual([]);
    expect(problemsOf(rule('weight = { "deepseek-*" = 10, "free" = 0 }'))).toEqual([]);
    expect(problemsOf(rule('metric = "tokens"\nweight = { "*" = 1000 }'))).toEqual([]);
  });

  it.each([
    [rule('name = "a"') + rule('name = "a"'), 'limits.1.name: expected another name than limits.0 has, got text "a"'],
    [rule("") + rule(""), "limits.1: expected a name, since limits.0 is user_requests_minute too, got a table"],
    [
      rule('name = "per_user"'),
      'limits.0.name: expected another name, since per_user is one of the proxy\'s own, got text "per_user"',
    ],
    [rule('name = "Not Plain"'), 'limits.0.name: expected lower-case letters, digits, - and _, got text "Not Plain"'],
    [bare('by = "user"\nmax = 0'), "limits.0.max: expected at least 1, got number 0"],
    [bare('by = "user"\nmax = -1'), "limits.0.max: expected at least 1, got number -1"],
    [bare('by = "user"\nmax = 1.5'), "limits.0.max: expected a whole number, got number 1.5"],
    [bare('by = "user"\nmax = "10"'), 'limits.0.max: expected a number, got text "10"'],
    [bare('by = "user"\nmax = 1000000000000'), "limits.0.max: expected at most 1000000000, got number 1000000000000"],
    [bare('by = "user"'), "limits.0.max: expected a number, got nothing"],
    [rule("burst = 0"), "limits.0.burst: expected at least 1, got number 0"],
    [
      '[[limits]]\nby = "user"\nper = "day"\nmax = 1',
      'limits.0.per: expected one of "second", "minute", "hour", got text "day"',
    ],
    [
      rule('metric = "cost"'),
      'limits.0.metric: expected one of "requests", "tokens", "output_tokens", got text "cost"',
    ],
    [
      bare('by = "usr"\nmax = 1'),
      'limits.0.by: expected one of global, user, key, group, tier, address, model, provider, or a list of them, got text "usr"',
    ],
    [bare("by = []\nmax = 1"), "limits.0.by: expected at least 1 entries, got a list of 0"],
    [bare('by = ["user", "user"]\nmax = 1'), "limits.0.by: expected each of them once, got a list of 2"],
    [
      bare('by = ["global", "user"]\nmax = 1'),
      "limits.0.by: expected nothing beside global, which is one for all, got a list of 2",
    ],
    [
      rule('tiers = ["gold"]'),
      'limits.0.tiers.0: expected a tier of quota.tiers: basic, pro, premium, got text "gold"',
    ],
    [
      rule('burst = 2\nweight = { "deepseek-pro" = 5 }'),
      "limits.0.weight.deepseek-pro: expected at most 2, the burst: a request of that weight would never pass, got number 5",
    ],
    [rule('groups = ["lab", "ops", "lab"]'), 'limits.0.groups.2: expected each of them once, got text "lab"'],
    [rule('tiers = ["pro", "pro"]'), 'limits.0.tiers.1: expected each of them once, got text "pro"'],
    [rule('models = ["a*", "a*"]'), 'limits.0.models.1: expected each of them once, got text "a*"'],
    [rule("weight = { a = -1 }"), "limits.0.weight.a: expected at least 0, got number -1"],
    [rule("maxx = 1"), 'limits.0.maxx: unknown key; did you mean "max"?'],
  ])("%j is refused", (text, problem) => {
    expect(problemsOf(text)).toEqual([problem]);
  });

  it("names the line of each problem", () => {
    const text = rule('name = "a"') + rule('burst = 2\nname = "a"\nweight = { x = 3 }');
    const refusal = () => parseConfig(text, "config.toml");
    expect(refusal).toThrow(ConfigError);
    expect(refusal).toThrow(/limits\.1\.name: .* \(line 11\)\n.*limits\.1\.weight\.x: .* \(line 12\)$/);
  });
});
