import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { startAdminApi } from "../support/admin-api.ts";
import { eventually } from "../support/eventually.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { alicePassword, bearer, post, userFile, type RunningProxy } from "../support/start-proxy.ts";

const path = "/admin/users/alice/quota";
const prices = `[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 1
cache_miss = 1
output = 1
`;
const tight = `[quota.tiers.basic]
limits = [{ metric = "requests", per = "month", max = 1 }]
`;

async function chat({ url, login }: RunningProxy, user = "alice"): Promise<number> {
  const body = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };
  const answer = await post(`${url}/chat/completions`, body, bearer(await login(user)));
  await answer.text();
  return answer.status;
}

describe("an administrator", () => {
  it("sees a user's quota with its grants and the limits of API keys", async () => {
    const { proxy, get, as } = await startAdminApi({
      users: {
        alice: userFile(
          "alice",
          alicePassword,
          'grants = [{ metric = "requests", per = "month", amount = 5, until = 2099-01-01, reason = "old friend" }]\n',
        ),
      },
    });
    const limits = [{ metric: "requests", per: "day", max: 7 }];
    expect((await as("alice", "POST", "/auth/keys", { name: "phone", limits })).status).toBe(201);
    await as("alice", "POST", "/auth/keys", { name: "no limits" });
    await chat(proxy);
    expect(await get(path)).toEqual({
      status: 200,
      body: {
        username: "alice",
        tier: "basic",
        limits: [
          {
            metric: "requests",
            per: "month",
            max: 505,
            used: 1,
            reserved: 0,
            remaining: 504,
            reset_at: expect.any(String),
          },
        ],
        grants: [
          // Midnight in Shanghai.
          { metric: "requests", per: "month", amount: 5, until: "2098-12-31T16:00:00.000Z", reason: "old friend" },
        ],
        keys: [{ id: expect.any(String), name: "phone", limits: [expect.objectContaining({ per: "day", max: 7 })] }],
      },
    });
  });

  it("grants more until the reset, from the next request on, and the grant then ends", async () => {
    const clock = createManualClock(Date.parse("2026-11-22T04:00:00Z"));
    const { proxy, post: ask, audits } = await startAdminApi({ config: tight, clock });
    expect([await chat(proxy), await chat(proxy)]).toEqual([200, 402]);
    const grant = { metric: "requests", per: "month", amount: 2, reason: "a demo" };
    const { status, body } = await ask(`${path}/grant`, grant);
    expect(status).toBe(200);
    const until = "2026-11-30T16:00:00.000Z";
    expect(body).toMatchObject({ limits: [{ max: 3, remaining: 2, reset_at: until }], grants: [{ ...grant, until }] });
    expect([await chat(proxy), await chat(proxy), await chat(proxy)]).toEqual([200, 200, 402]);
    expect(await audits()).toEqual([
      {
        event: "admin.changed",
        action: "quota.granted",
        by: "boss",
        user: "alice",
        ip: "127.0.0.1",
        trace_id: expect.any(String),
        subject: "requests per month",
        before: null,
        reason: "a demo",
        after: { metric: "requests", per: "month", amount: 2, until },
      },
    ]);
    clock.advance(9 * 86_400_000);
    expect([await chat(proxy), await chat(proxy)]).toEqual([200, 402]);
    // The tokens of before have expired with the step.
    const later = await fetch(`${proxy.url}${path}`, { headers: bearer(await proxy.login("boss")) });
    expect(await later.json()).toMatchObject({ limits: [{ max: 1 }], grants: [] });
  });

  it("may grant at the same time as another, and both grants count, beside what was there", async () => {
    const { proxy, as, get } = await startAdminApi({
      users: {
        alice: userFile(
          "alice",
          alicePassword,
          '# keep me\ngrants = [{ metric = "requests", per = "month", amount = 1, until = 2001-01-01 }, { metric = "requests", per = "month", amount = 1000, until = 2099-01-01 }]\n',
        ),
      },
    });
    const amounts = [1, 2, 4, 8, 16, 32, 64, 128];
    const grants = amounts.map((amount, index) =>
      as(index % 2 === 0 ? "boss" : "chief", "POST", `${path}/grant`, {
        metric: "requests",
        per: "month",
        amount,
        reason: "both",
      }),
    );
    expect((await Promise.all(grants)).map(({ status }) => status)).toEqual(amounts.map(() => 200));
    expect((await get(path)).body).toMatchObject({ limits: [{ max: 500 + 1000 + 255 }] });
    // Over Redis, the file follows.
    await eventually(async () => {
      const text = await readFile(join(proxy.folder, "users", "alice.toml"), "utf8");
      expect(text).toContain("# keep me");
      expect(text).toContain("until = 2099-01-01 }");
      expect(text, "what is over is dropped").not.toContain("2001-01-01");
    });
  });

  it("grants money exactly, given as a number or as text", async () => {
    const { post: ask } = await startAdminApi({
      config: `[quota.tiers.basic]\nlimits = [{ metric = "cost", per = "total", max = 1 }]\n`,
    });
    const grant = { metric: "cost", per: "total", reason: "exact" };
    await ask(`${path}/grant`, { ...grant, amount: "0.000000001" });
    const { body } = await ask(`${path}/grant`, { ...grant, amount: 0.1, currency: "CNY" });
    expect(body).toMatchObject({ limits: [{ max: 1.100000001, reset_at: null }] });
    expect(body.grants).toMatchObject([
      { amount: 1e-9, currency: "CNY", until: null },
      { amount: 0.1, currency: "CNY", until: null },
    ]);
  });

  it("takes back, or adds to, what is used, exactly and with the reason in the audit log", async () => {
    const config = `${prices}[quota.tiers.basic]
limits = [{ metric = "requests", per = "month", max = 10 }, { metric = "cost", per = "day", max = 5 }]
`;
    const { post: ask, proxy, audits } = await startAdminApi({ config });
    expect(await chat(proxy)).toBe(200);
    const up = await ask(`${path}/adjust`, { requests: 4, tokens: 7, cost: "1.000000001", reason: "by phone" });
    expect(up.body.limits[0]).toMatchObject({ used: 5, remaining: 5 });
    const cost = up.body.limits[1].used as number;
    const down = await ask(`${path}/adjust`, {
      requests: -2,
      cost: -0.5,
      currency: "CNY",
      reason: "the provider failed",
    });
    expect(down.body.limits[0]).toMatchObject({ used: 3 });
    expect(Math.round((cost - down.body.limits[1].used) * 1e9)).toBe(500_000_000);
    // Never below nothing.
    const zero = await ask(`${path}/adjust`, { requests: -100, cost: "-100", reason: "all of it" });
    expect(zero.body.limits).toMatchObject([{ used: 0 }, { used: 0 }]);
    const [first, second] = await audits();
    expect(first).toMatchObject({ action: "quota.adjusted", subject: "requests tokens cost", reason: "by phone" });
    expect(second).toMatchObject({
      action: "quota.adjusted",
      user: "alice",
      by: "boss",
      reason: "the provider failed",
    });
    expect(second?.before).toMatchObject({
      used: expect.arrayContaining([{ metric: "requests", per: "month", amount: 5 }]) as unknown,
    });
    expect(second?.after).toMatchObject({
      used: expect.arrayContaining([{ metric: "requests", per: "month", amount: 3 }]) as unknown,
    });
  });

  it("says in the audit log what each of several changes at once has found and made, while requests run", async () => {
    // With this each change is waited for, as over Redis, where it would need an append-only file.
    const strict = process.env.E2E_BACKENDS === "redis" ? "" : '[storage]\ndurability = "strict"\n';
    const config = `[quota.tiers]\nbasic = { requests = 1000 }\n${strict}`;
    const { post: ask, proxy, audits } = await startAdminApi({ config });
    await ask(`${path}/adjust`, { requests: 1, reason: "before" });
    await Promise.all([
      ...Array.from({ length: 5 }, () => ask(`${path}/adjust`, { requests: 10, reason: "at once" })),
      ...Array.from({ length: 20 }, () => chat(proxy)),
    ]);
    const used = (side: unknown): number => {
      const { used: all } = side as { used: readonly { per: string; amount: number }[] };
      return all.find(({ per }) => per === "month")?.amount ?? NaN;
    };
    const rows = (await audits()).filter(({ reason }) => reason === "at once");
    expect(rows.map(({ before, after }) => used(after) - used(before))).toEqual([10, 10, 10, 10, 10]);
    expect(new Set(rows.map(({ before }) => used(before))).size).toBe(5);
    await ask(`${path}/reset`, { per: "month", reason: "anew" });
    const [last] = (await audits()).slice(-1);
    expect([used(last?.before), used(last?.after)]).toEqual([71, 0]);
  });

  it("begins a period anew, and no other", async () => {
    const config = `[quota.tiers.basic]
limits = [{ metric = "requests", per = "day", max = 1 }, { metric = "requests", per = "month", max = 10 }]
`;
    const clock = createManualClock(Date.parse("2026-11-22T04:00:00Z"));
    const { post: ask, proxy, audits } = await startAdminApi({ config, clock });
    expect([await chat(proxy), await chat(proxy)]).toEqual([200, 402]);
    const { body } = await ask(`${path}/reset`, { per: "day", reason: "a new try" });
    expect(body.limits).toMatchObject([{ used: 0 }, { used: 1 }]);
    expect([await chat(proxy), await chat(proxy)]).toEqual([200, 402]);
    expect(await audits()).toMatchObject([
      {
        action: "quota.reset",
        subject: "day",
        reason: "a new try",
        before: { used: [{ metric: "requests", per: "day", amount: 1 }, { metric: "tokens" }, { metric: "cost" }] },
        after: { used: [{ amount: 0 }, { amount: 0 }, { amount: "0" }] },
      },
    ]);
  });

  it("finds every change in the log of the user whom it concerned, too", async () => {
    const { post: ask, get } = await startAdminApi();
    await ask(`${path}/adjust`, { requests: 1, reason: "counted by hand" });
    await eventually(async () => {
      const { body } = await get("/admin/users/alice/behaviour?type=admin.changed");
      expect(body.events).toMatchObject([{ action: "quota.adjusted", by: "boss", reason: "counted by hand" }]);
    });
  });
});
