import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startAdminApi } from "../support/admin-api.ts";
import { bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const config = `[quota]
currency = "CNY"
[quota.tiers.basic]
limits = [{ metric = "tokens", per = "total", max = 1000 }, { metric = "cost", per = "day", max = 1 }]
[quota.tiers.pro]
limits = [{ metric = "tokens", per = "month", max = 1000 }]
[groups.lab]
members = ["user1"]
`;
const many = 20;
const password = "a long password";
const users = Object.fromEntries([
  ...Array.from({ length: many }, (_, index) => [`user${index}`, userFile(`user${index}`, password)] as const),
  ["root", userFile("root", password, 'roles = ["admin"]\n')] as const,
]);

interface Refusal {
  readonly error: { readonly code: string; readonly details?: { readonly reason?: string } };
}

describe("redemption codes", () => {
  let proxy: RunningProxy;
  let admin: string;
  const tokens = new Map<string, string>();

  beforeAll(async () => {
    proxy = await startProxy({ config, users });
    admin = await proxy.login("root", password);
    for (let index = 0; index < many; index++) tokens.set(`user${index}`, await proxy.login(`user${index}`, password));
  });
  afterAll(() => proxy.dispose());

  const make = async (fields: object): Promise<{ batch: string; codes: string[] }> => {
    const body = { name: "autumn", metric: "tokens", per: "total", amount: 500, ...fields };
    const response = await post(`${proxy.url}/admin/codes`, body, bearer(admin));
    expect(response.status).toBe(201);
    return (await response.json()) as { batch: string; codes: string[] };
  };
  const redeem = (user: string, code: string) =>
    post(`${proxy.url}/codes/redeem`, { code }, bearer(tokens.get(user) ?? ""));
  const reasonOf = async (response: Response) => {
    const { error } = (await response.json()) as Refusal;
    return [response.status, error.code, error.details?.reason];
  };
  const limitOf = async (user: string): Promise<number> => {
    const response = await fetch(`${proxy.url}/auth/quota`, { headers: bearer(tokens.get(user) ?? "") });
    return ((await response.json()) as { limits: { max: number }[] }).limits[0]?.max ?? NaN;
  };

  it("add to a limit once, and are kept as digests alone", async () => {
    const { batch, codes } = await make({ count: 2 });
    expect(codes).toHaveLength(2);
    const [code = ""] = codes;
    const response = await redeem("user0", ` ${code.toLowerCase().replaceAll("-", " ")} `);
    expect([response.status, await response.json()]).toMatchObject([
      200,
      {
        id: `${batch}-1`,
        metric: "tokens",
        amount: "500",
        until: null,
        before: { max: 1000 },
        after: { max: 1500 },
      },
    ]);
    expect(await limitOf("user0")).toBe(1500);
    expect(await reasonOf(await redeem("user0", code))).toEqual([400, "code_invalid", "redeemed"]);
    expect(await reasonOf(await redeem("user1", code))).toEqual([400, "code_invalid", "used_up"]);
    expect(await limitOf("user0")).toBe(1500);
    const listed = await (await fetch(`${proxy.url}/admin/codes`, { headers: bearer(admin) })).text();
    expect(JSON.parse(listed)).toMatchObject({
      codes: [
        { id: `${batch}-1`, name: "autumn", state: "used_up", used: 1, uses: 1, used_by: ["user0"] },
        { id: `${batch}-2`, state: "unused", used_by: [], expires_at: null },
      ],
    });
    const stored = await readFile(join(proxy.folder, "users", "codes", `${batch}.json`), "utf8").catch(() => "");
    const secret = code.slice(9).replaceAll("-", "").toLowerCase();
    for (const text of [listed, stored.toLowerCase(), ...proxy.logLines]) expect(text).not.toContain(secret);
    const audit = await (await fetch(`${proxy.url}/admin/audit`, { headers: bearer(admin) })).text();
    expect(audit).toContain('"code.redeemed"');
    expect(audit).not.toContain(secret);
  });

  it("show small amounts as decimals, and are disabled once", async () => {
    const { batch, codes } = await make({ metric: "cost", per: "day", amount: "0.000000001" });
    const given = { id: `${batch}-1`, metric: "cost", amount: "0.000000001", currency: "CNY" };
    expect(await (await redeem("user9", codes[0] ?? "")).json()).toMatchObject({
      ...given,
      after: { max: 1.000000001 },
    });
    const listed = await fetch(`${proxy.url}/admin/codes`, { headers: bearer(admin) });
    expect(((await listed.json()) as { codes: unknown[] }).codes).toContainEqual(expect.objectContaining(given));
    for (const id of [batch, batch, `${batch}-1`])
      expect((await post(`${proxy.url}/admin/codes/${id}/disable`, {}, bearer(admin))).status).toBe(204);
    const audit = await fetch(`${proxy.url}/admin/audit?action=codes.disabled`, { headers: bearer(admin) });
    const { events } = (await audit.json()) as { events: { subject: string }[] };
    expect(events.map(({ subject }) => subject)).toEqual([batch]);
  });

  it("are worth at most what a grant can be", async () => {
    const cost = { metric: "cost", per: "day" };
    const body = { name: "large", ...cost, amount: "9007199.25" };
    const refused = await post(`${proxy.url}/admin/codes`, body, bearer(admin));
    expect([refused.status, await refused.json()]).toMatchObject([400, { error: { param: "amount" } }]);
    const { codes } = await make({ ...cost, amount: 9007199 });
    expect((await redeem("user10", codes[0] ?? "")).status).toBe(200);
  });

  it("are in a currency that a price is in: nobody could have a limit that others add to", async () => {
    const price = '[[models.prices]]\nmodels = ["*"]\ncurrency = "CNY"\ncache_hit = 1\ncache_miss = 1\noutput = 1\n';
    const { post: ask } = await startAdminApi({ config: price });
    const body = { name: "dollars", metric: "cost", per: "day", amount: 1 };
    const message = "currency: expected a currency of models.prices, which are in CNY; got USD.";
    expect(await ask("/admin/codes", { ...body, currency: "USD" })).toMatchObject({
      status: 400,
      body: { error: { param: "currency", message } },
    });
    expect((await ask("/admin/codes", { ...body, currency: "CNY" })).status).toBe(201);
  });

  it("give a credit that lasts for a minute at the least", async () => {
    const body = { name: "short", metric: "tokens", per: "total", amount: 1 };
    const refused = await post(`${proxy.url}/admin/codes`, { ...body, credit_days: 1e-9 }, bearer(admin));
    expect([refused.status, await refused.json()]).toMatchObject([
      400,
      { error: { param: "credit_days", message: "credit_days: expected at least 0.001" } },
    ]);
    await make({ credit_days: 0.001 });
  });

  it("are redeemed once by 100 at once", async () => {
    const { codes } = await make({});
    const limits = await Promise.all([...tokens.keys()].map(limitOf));
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) => redeem(`user${index % many}`, codes[0] ?? "")),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    const after = await Promise.all([...tokens.keys()].map(limitOf));
    const sum = (all: readonly number[]): number => all.reduce((total, one) => total + one, 0);
    expect(sum(after) - sum(limits)).toBe(500);

    const shared = await make({ uses: 7 });
    const more = await Promise.all(
      Array.from({ length: 100 }, (_, index) => redeem(`user${index % many}`, shared.codes[0] ?? "")),
    );
    expect(more.filter(({ status }) => status === 200)).toHaveLength(7);
    expect(sum(await Promise.all([...tokens.keys()].map(limitOf))) - sum(after)).toBe(3500);
  });

  it("are refused where they don't fit, and stay as they are", async () => {
    const [ofLab, ofPro, monthly] = [
      await make({ group: "lab" }),
      await make({ tier: "pro" }),
      await make({ per: "month" }),
    ];
    expect(await reasonOf(await redeem("user2", ofLab.codes[0] ?? ""))).toEqual([400, "code_invalid", "not_for_you"]);
    expect(await reasonOf(await redeem("user2", ofPro.codes[0] ?? ""))).toEqual([400, "code_invalid", "not_for_you"]);
    expect(await reasonOf(await redeem("user2", monthly.codes[0] ?? ""))).toEqual([400, "invalid_request", undefined]);
    expect((await redeem("user1", ofLab.codes[0] ?? "")).status).toBe(200);
    const { batch, codes } = await make({ count: 2 });
    const disable = (id: string) => post(`${proxy.url}/admin/codes/${id}/disable`, {}, bearer(admin));
    expect((await disable(`${batch}-1`)).status).toBe(204);
    expect(await reasonOf(await redeem("user2", codes[0] ?? ""))).toEqual([400, "code_invalid", "disabled"]);
    expect((await redeem("user2", codes[1] ?? "")).status).toBe(200);
    expect((await disable(`${batch}-3`)).status).toBe(404);
    expect((await disable("nonsense")).status).toBe(404);
    const bad = [
      { amount: 0 },
      { amount: "1.5" },
      { count: 0 },
      { currency: "CNY" },
      { group: "none" },
      { expires_at: "2020-01-01T00:00:00Z" },
      // A year of five digits, which no date of a response has.
      { expires_at: "9999-12-31T23:00:00-08:00" },
    ];
    for (const fields of bad) {
      const body = { name: "x", metric: "tokens", per: "total", amount: 5, ...fields };
      expect((await post(`${proxy.url}/admin/codes`, body, bearer(admin))).status, JSON.stringify(fields)).toBe(400);
    }
    expect((await post(`${proxy.url}/admin/codes`, {}, bearer(tokens.get("user1") ?? ""))).status).toBe(403);
  });

  it("whose credit lasts for parts of a day can be used and listed for as long as they are kept", async () => {
    const { codes } = await make({ uses: 3, credit_days: 0.0333333 });
    const answers = await Promise.all(["user6", "user7"].map((user) => redeem(user, codes[0] ?? "")));
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    await proxy.stop();
    const { folder } = proxy;
    proxy = await startProxy({ config, folder });
    admin = await proxy.login("root", password);
    expect((await redeem("user8", codes[0] ?? "")).status).toBe(200);
    const listed = await fetch(`${proxy.url}/admin/codes`, { headers: bearer(admin) });
    expect([listed.status, await listed.text()]).toEqual([200, expect.stringContaining('"used":3')]);
  });

  it("push ended credits out of a full account, and are not used up where there is no room", async () => {
    const grants = (count: number, until: Date | undefined) =>
      Array.from({ length: count }, () => ({
        metric: "tokens" as const,
        per: "total" as const,
        amount: 1,
        ...(until === undefined ? {} : { until }),
      }));
    const { codes } = await make({ uses: 2 });
    const { users: stored } = proxy.services;
    await stored.update("user9", { grants: grants(1000, new Date("2020-01-01T00:00:00Z")) });
    expect((await redeem("user9", codes[0] ?? "")).status).toBe(200);
    expect(await limitOf("user9")).toBe(1500);
    await stored.update("user10", { grants: grants(1000, undefined) });
    expect(await reasonOf(await redeem("user10", codes[0] ?? ""))).toEqual([409, "conflict", undefined]);
    await stored.update("user10", { grants: [] });
    expect(await reasonOf(await redeem("user9", codes[0] ?? ""))).toEqual([400, "code_invalid", "redeemed"]);
    expect((await redeem("user10", codes[0] ?? "")).status).toBe(200);
  });

  it("can't be guessed", async () => {
    const made = "0000000000000000000000000000";
    for (let tries = 0; tries < 6; tries++) await redeem("user5", `${made.slice(1)}${tries}`);
    expect((await redeem("user5", made)).status).toBe(429);
  });
});

describe("a redemption that a crash has interrupted", () => {
  it("is completed once, by the next start or the next try", async () => {
    const first = await startProxy({ config, users: { user0: users.user0 ?? "", root: users.root ?? "" } });
    const token = await first.login("root", password);
    const body = { name: "x", metric: "tokens", per: "total", amount: 500 };
    const made = await post(`${first.url}/admin/codes`, body, bearer(token));
    const { codes } = (await made.json()) as { codes: string[] };
    const mine = await first.login("user0", password);
    expect((await post(`${first.url}/codes/redeem`, { code: codes[0] }, bearer(mine))).status).toBe(200);
    await first.stop();
    const limitAfter = async (
      change: (text: string) => string,
      user: (text: string) => string,
      hasGrant: boolean,
    ): Promise<number> => {
      const folder = join(first.folder, "users", "codes");
      const [file = ""] = await readdir(folder);
      await writeFile(join(folder, file), change(await readFile(join(folder, file), "utf8")));
      const path = join(first.folder, "users", "user0.toml");
      const text = user(await readFile(path, "utf8"));
      expect(text.includes("grants")).toBe(hasGrant);
      await writeFile(path, text);
      const next = await startProxy({ config, folder: first.folder });
      await next.services.admin.redemptions.recover();
      const account = await next.services.users.get("user0");
      recorded.push(await redeemedLines(next));
      await next.stop();
      return (account?.grants ?? []).reduce((sum, { amount }) => sum + amount, 0);
    };
    const undone = (text: string): string => text.replace('"done":true', '"done":false');
    const recorded: number[] = [];
    // The grant had been stored, its note had not; then neither.
    expect(await limitAfter(undone, (text) => text, true)).toBe(500);
    expect(await limitAfter(undone, (text) => text.replace(/^\[\[grants\]\][^]*$|^grants = .*$/m, ""), false)).toBe(
      500,
    );
    // The first by its user, one more by each start.
    expect(recorded).toEqual([2, 3]);
    await first.dispose();
  });

  it("is taken back where an earlier version made a code that is worth more than a grant can be", async () => {
    const first = await startProxy({ config, users: { user0: users.user0 ?? "", root: users.root ?? "" } });
    const body = { name: "x", metric: "cost", per: "day", amount: 1, uses: 2 };
    const made = await post(`${first.url}/admin/codes`, body, bearer(await first.login("root", password)));
    const { codes } = (await made.json()) as { codes: string[] };
    await first.stop();
    const folder = join(first.folder, "users", "codes");
    const [file = ""] = await readdir(folder);
    const use = '{"user":"user0","at":1,"until":9000000000000,"done":false}';
    const text = await readFile(join(folder, file), "utf8");
    await writeFile(
      join(folder, file),
      text.replace('"amount":1,', '"amount":9007199.25,').replace('"uses":[]', `"uses":[${use}]`),
    );
    const next = await startProxy({ config, folder: first.folder });
    await next.services.admin.redemptions.recover();
    const listed = async (): Promise<unknown> => {
      const answer = await fetch(`${next.url}/admin/codes`, { headers: bearer(await next.login("root", password)) });
      return answer.json();
    };
    const unused = { codes: [{ amount: "9007199.25", state: "unused", used: 0 }] };
    expect(await listed()).toMatchObject(unused);
    const mine = await next.login("user0", password);
    const refused = await post(`${next.url}/codes/redeem`, { code: codes[0] }, bearer(mine));
    expect([refused.status, await refused.json()]).toMatchObject([
      400,
      {
        error: {
          code: "code_invalid",
          details: { reason: "outdated" },
          message: expect.stringContaining("worth more"),
        },
      },
    ]);
    expect(await listed()).toMatchObject(unused);
    expect(next.logLines.filter((line) => line.includes("is unused again"))).toHaveLength(1);
    await next.dispose();
  });
});

async function redeemedLines(proxy: RunningProxy): Promise<number> {
  const token = await proxy.login("root", password);
  const answer = await fetch(`${proxy.url}/admin/audit?action=code.redeemed`, { headers: bearer(token) });
  return ((await answer.json()) as { events: unknown[] }).events.length;
}
