import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { permitRequest } from "../../src/gateway/admit.ts";
import type { RequestContext } from "../../src/gateway/request-context.ts";
import { neutralTrust } from "../../src/risk/trust.ts";
import { createPermitRules } from "../../src/limits/permit-rules.ts";
import type { Route } from "../../src/providers/router.ts";

const route = {
  model: "m",
  upstreamModel: "reasoner-2",
  // A provider with two keys is two candidates.
  candidates: [{ name: "a" }, { name: "a" }, { name: "b" }],
} as unknown as Route;

/** What a request of alice asks for under a config. */
function asked(toml: string, changes: Partial<RequestContext> = {}, max_parallel?: number) {
  const permitRules = createPermitRules(parseConfig(toml, "test.toml"), (name) => (name === "a" ? 3 : Infinity));
  const account = { username: "alice", quota_tier: "pro", max_parallel };
  const incoming = { account, client: { traceId: "t" }, policy: { permitRules } };
  const context = { incoming, group: null, trust: neutralTrust, ...changes } as unknown as RequestContext;
  return permitRequest(context, route);
}

describe("the permits that a request needs", () => {
  it("are the user's alone where nothing else has a cap", () => {
    expect(asked("")).toEqual({
      requestId: "t",
      user: "alice",
      weight: 1,
      providers: [],
      scopes: [{ kind: "user", key: "alice", max: 8 }],
    });
  });

  it("are those of group, model, process and providers where they have one", () => {
    const toml = `[concurrency]\nmax_total = 9\n[concurrency.per_model]\n"reasoner*" = 4\n[concurrency.adaptive]
enabled = true\n[quota.tiers.pro]\nweight = 3\n`;
    const group = { name: "g", maxParallel: 5 } as RequestContext["group"];
    expect(asked(toml, { group })).toMatchObject({
      weight: 3,
      scopes: [
        { kind: "user", key: "alice", max: 8 },
        { kind: "group", key: "g", max: 5 },
        { kind: "model", key: "reasoner-2", max: 4 },
        { kind: "process", key: "", max: 9 },
      ],
      providers: [
        { kind: "provider", key: "a", max: 3 },
        { kind: "provider", key: "b", max: Infinity },
      ],
    });
  });

  it("follow the user's own maximum and trust, but are never none", () => {
    const maxOf = (own: number | undefined, parallel: number) =>
      asked("", { trust: { ...neutralTrust, parallel } }, own).scopes[0]?.max;
    expect([maxOf(undefined, 0.5), maxOf(20, 1), maxOf(3, 0.5), maxOf(1, 0.1), maxOf(2, 2.6)]).toEqual([
      4, 20, 1, 1, 5,
    ]);
  });
});
