import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { expandMembers } from "../../src/lib/member-graph.ts";
import { problemsOf } from "./support.ts";

const list = (count: number, of: (index: number) => string): string =>
  Array.from({ length: count }, (_none, index) => `"${of(index)}"`).join(", ");

describe("[groups]", () => {
  it("is empty by default, and each of its settings has a default", () => {
    expect(parseConfig("", "x").groups).toEqual({});
    expect(parseConfig("[groups.research]", "x").groups.research).toEqual({
      description: "",
      members: [],
      owners: [],
      limits: [],
      rates: [],
    });
  });

  it("takes users and groups as members, also twice and through other groups", () => {
    const text = `
[groups.research]
members = ["alice", "@interns", "alice", "bob"]
[groups.interns]
members = ["bob", "carol"]
limits = [{ metric = "cost", per = "month", max = 12.5 }]`;
    expect(problemsOf(text)).toEqual([]);
  });

  it.each([
    [
      "an unknown group",
      `[groups.a]\nmembers = ["@b"]`,
      `groups.a.members.0: expected the name of a user: there is no other group, got text "@b"`,
    ],
    ["itself", `[groups.a]\nmembers = ["x", "@a"]`, `groups.a.members.1: expected no cycle: a -> a, got text "@a"`],
    [
      "a ring",
      `[groups.a]\nmembers = ["@b"]\n[groups.b]\nmembers = ["@c"]\n[groups.c]\nmembers = ["@a"]`,
      `groups.c.members.0: expected no cycle: a -> b -> c -> a, got text "@a"`,
    ],
    ["a name that no user has", `[groups.a]\nmembers = ["Alice"]`, `groups.a.members.0: expected the name of a user`],
    ["a name that no group has", `[groups.A]`, `groups.A: expected another key: lower-case letters`],
    [
      "a negative maximum",
      `[groups.a]\nlimits = [{ metric = "requests", per = "day", max = -1 }]`,
      "groups.a.limits.0.max:",
    ],
    [
      "half a request",
      `[groups.a]\nlimits = [{ metric = "requests", per = "day", max = 1.5 }]`,
      "groups.a.limits.0.max:",
    ],
    [
      "two limits of one kind",
      `[groups.a]\nlimits = [{ metric = "requests", per = "day", max = 1 }, { metric = "requests", per = "day", max = 2 }]`,
      "groups.a.limits.1: expected one limit of requests per day",
    ],
    [
      "a request of a weight that would never pass",
      `[groups.a]\nrates = [{ metric = "requests", per = "second", max = 2, weight = { "free" = 4, "pro*" = 5 } }]`,
      "groups.a.rates.0.weight.pro*: expected at most 4, the burst: a request of that weight would never pass",
    ],
    ["no model at all", `[groups.a]\nmodels = []`, "groups.a.models: expected at least 1 entries"],
    ["no chat at once", `[groups.a]\nmax_parallel = 0`, "groups.a.max_parallel: expected at least 1"],
    ["an unknown key", `[groups.a]\nmember = ["alice"]`, `groups.a.member: unknown key; did you mean "members"?`],
    [
      "a rate that lets nothing pass",
      `[groups.a]\nrates = [{ metric = "requests", per = "minute", max = 0 }]`,
      "groups.a.rates.0.max:",
    ],
    [
      "a limit in a currency without a price",
      `[groups.a]\nlimits = [{ metric = "cost", per = "day", max = 1, currency = "USD" }]
[[models.prices]]\nmodels = ["*"]\ncurrency = "CNY"\ncache_hit = 1\ncache_miss = 1\noutput = 1`,
      "groups.a.limits.0: expected a limit in a currency of models.prices",
    ],
  ])("refuses %s, and says where", (_name, text, problem) => {
    const [first, ...others] = problemsOf(text);
    expect(first).toContain(problem);
    expect(others).toEqual([]);
  });
});

describe("the members of groups", () => {
  const expand = (lists: Readonly<Record<string, readonly string[]>>) => expandMembers(new Map(Object.entries(lists)));

  it("are those of the groups inside as well, once and sorted", () => {
    const { members, problems } = expand({ a: ["zoe", "@b", "@c"], b: ["bob", "@c"], c: ["carol", "bob"] });
    expect(problems).toEqual([]);
    expect(members.get("a")).toEqual(["bob", "carol", "zoe"]);
    expect(members.get("b")).toEqual(["bob", "carol"]);
  });

  it("leave out what has a problem, and keep all others", () => {
    const { members, problems } = expand({ a: ["@b", "alice"], b: ["@a", "bob", "@nobody"] });
    expect(problems.map(({ group, index }) => [group, index])).toEqual([
      ["b", 0],
      ["b", 2],
    ]);
    expect(members.get("a")).toEqual(["alice", "bob"]);
    expect(members.get("b")).toEqual(["bob"]);
  });

  it("name other groups than the one itself where a group is unknown, a few of many", () => {
    const messageFor = (lists: Readonly<Record<string, readonly string[]>>) => expand(lists).problems[0]?.message;
    expect(messageFor({ a: ["@x"], b: [], c: [] })).toBe("expected another group: @b, @c");
    expect(messageFor({ a: ["@x"] })).toBe("expected the name of a user: there is no other group");
    const many = Object.fromEntries(Array.from({ length: 1000 }, (_none, index) => [`g${index}`, []] as const));
    expect(messageFor({ a: ["@x"], ...many })).toMatch(/^expected another group: (@g\d+, ){20}…$/);
  });

  it("have the same problem whatever else there is, and whichever group is looked at first", () => {
    const identities = (lists: Readonly<Record<string, readonly string[]>>) =>
      new Set(expand(lists).problems.map(({ identity }) => identity));
    const known = identities({ b: ["@c", "alice", "@gone"], c: ["@b"] });
    expect(known.size).toBe(2);
    expect(identities({ a: ["@c"], c: ["@b"], b: ["@gone", "@c"] })).toEqual(known);
    expect(identities({ b: ["@c", "@lost"], c: ["@b"] })).not.toEqual(known);
  });

  it("are at most 10000, in at most 8 groups inside each other", () => {
    const chain = (length: number) =>
      Object.fromEntries(Array.from({ length }, (_none, index) => [`g${index}`, [`@g${index + 1}`]] as const));
    expect(expand({ ...chain(7), g7: ["alice"] }).problems).toEqual([]);
    expect(expand({ ...chain(8), g8: ["alice"] }).problems).toMatchObject([
      { group: "g0", message: "expected at most 8 groups inside each other" },
    ]);
    const many = (prefix: string) => Array.from({ length: 6000 }, (_none, index) => `${prefix}${index}`);
    const { problems } = expand({ a: ["@b", "@c", "@b"], b: many("b"), c: many("c") });
    expect(problems).toMatchObject([{ group: "a", index: 1 }]);
    expect(problemsOf(`[groups.a]\nmembers = [${list(10_001, (index) => `u${index}`)}]`)[0]).toContain("at most 10000");
  });
});
