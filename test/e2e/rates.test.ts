import { writeFile } from "node:fs/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { eventually } from "../support/eventually.ts";
import { parseFieldList } from "../support/structured-field.ts";
import { alicePassword, bearer, post, startProxy, userFile } from "../support/start-proxy.ts";

const messages = [{ role: "user", content: "hi" }];

/** A proxy over the simulator, whose rates are counted by a clock that stands still until it is moved. */
async function start(limits: string, rest = "") {
  let now = 0;
  const proxy = await startProxy({
    clock: { now: systemClock.now, monotonic: () => now },
    users: {
      alice: userFile("alice", alicePassword, "max_parallel = 100\n"),
      bob: userFile("bob", alicePassword, "max_parallel = 100\n"),
      root: userFile("root", alicePassword, 'roles = ["admin"]\n'),
    },
    configFile: true,
    config: `${rest}\n${limits}`,
  });
  onTestFinished(() => proxy.dispose());
  const token = await proxy.login();
  const ask = (body: object = {}, as = token, path = "/v1/chat/completions") =>
    post(`${proxy.url}${path}`, { model: "sim-fast", messages, stream: false, ...body }, bearer(as));
  const advance = (ms: number): void => void (now += ms);
  return { proxy, token, ask, advance };
}

const perMinute = (by: string, max: number, rest = "") =>
  `[[limits]]\nname = "rule_${max}"\nby = ${by}\nper = "minute"\nmax = ${max}\n${rest}\n`;

describe("a rule of [[limits]]", () => {
  it("is shown with each response, refuses with a Retry-After that is right, and leaves others alone", async () => {
    const { proxy, ask, advance } = await start(perMinute('"user"', 2));
    for (const [stream, left] of [
      [false, 1],
      [true, 0],
    ] as const) {
      const answer = await ask({ stream });
      expect(answer.status).toBe(200);
      await answer.text();
      expect(parseFieldList(answer.headers.get("ratelimit-policy"))).toEqual([{ name: "rule_2", q: 2, w: 60 }]);
      expect(parseFieldList(answer.headers.get("ratelimit"))).toEqual([{ name: "rule_2", r: left, t: 60 - 30 * left }]);
      expect(answer.headers.get("x-ratelimit-remaining-requests")).toBe(String(left));
    }
    advance(10_001);
    const refused = await ask();
    expect(refused.status).toBe(429);
    expect(refused.headers.get("retry-after")).toBe("20");
    expect(parseFieldList(refused.headers.get("ratelimit"))).toEqual([{ name: "rule_2", r: 0, t: 20 }]);
    expect(refused.headers.get("x-ratelimit-limit-requests")).toBe("2");
    expect(await refused.json()).toMatchObject({
      error: { code: "rate_limited", type: "rate_limit_error", details: { rule: "rule_2" } },
    });
    expect((await ask({}, await proxy.login("bob"))).status).toBe(200);
    advance(19_998);
    expect((await ask()).status).toBe(429);
    advance(1);
    expect((await ask()).status).toBe(200);
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(metrics).toContain('rate_limit_rejections_total{rule="rule_2"} 2');
  });

  it("shows itself to Anthropic's clients by their names", async () => {
    const { ask } = await start(perMinute('"user"', 5) + perMinute('"global"', 100_000, 'metric = "tokens"'));
    const answer = await ask({ max_tokens: 20 }, undefined, "/anthropic/v1/messages");
    expect(answer.status).toBe(200);
    expect(answer.headers.get("anthropic-ratelimit-requests-remaining")).toBe("4");
    expect(answer.headers.get("anthropic-ratelimit-tokens-limit")).toBe("100000");
    expect(answer.headers.get("anthropic-ratelimit-requests-reset")).toMatch(/^\d{4}-\d\d-\d\dT/);
    expect(answer.headers.has("x-ratelimit-limit-requests")).toBe(false);
  });

  it("counts the tokens that were used, whatever was reserved, and says what would fit", async () => {
    const { ask } = await start(perMinute('"user"', 1000, 'metric = "tokens"'));
    const left = (answer: Response) => Number(answer.headers.get("x-ratelimit-remaining-tokens"));
    const first = await ask({ max_tokens: 600 });
    expect(left(first)).toBeLessThan(400);
    const { usage } = (await first.json()) as { usage: { total_tokens: number } };
    const second = await ask({ max_tokens: 600 });
    expect(left(second)).toBe(left(first) - usage.total_tokens);

    const tooLarge = await ask({ max_tokens: 5000 });
    expect(tooLarge.status).toBe(429);
    expect(tooLarge.headers.get("x-should-retry")).toBe("false");
    expect(Number(tooLarge.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(await tooLarge.json()).toMatchObject({
      error: { details: { rule: "rule_1000", metric: "tokens", most: 1000 } },
    });
    // Without max_tokens the bound is the proxy's own: such a request waits for a full bucket, and is not refused for good.
    const own = await ask();
    expect(own.headers.get("x-should-retry")).toBeNull();
    expect(own.status).toBe(429);
  });

  it("gives everything back if nobody could be asked", async () => {
    const { proxy, ask } = await start(perMinute('["user", "model"]', 3));
    proxy.services.providerAdmin.drain("simulator");
    for (let asked = 0; asked < 5; asked++) expect((await ask()).status).toBe(503);
    proxy.services.providerAdmin.restore("simulator");
    const answers = await Promise.all(Array.from({ length: 5 }, () => ask()));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 429, 429]);
  });

  it("of a group is shared by its members, beside their own", async () => {
    const group = `[groups.lab]\nmembers = ["alice", "bob"]\nrates = [{ metric = "requests", per = "minute", max = 2 }]\n`;
    const { proxy, ask } = await start(perMinute('"user"', 100) + perMinute('"user"', 50, 'groups = ["later"]'), group);
    const bob = await proxy.login("bob");
    expect([(await ask()).status, (await ask({}, bob)).status]).toEqual([200, 200]);
    expect(await (await ask()).json()).toMatchObject({ error: { details: { rule: "group_lab_requests_minute" } } });
    expect((await ask({}, await proxy.login("root"))).status).toBe(200);
    expect(proxy.logLines.filter((line) => line.includes("rules for rates name groups"))).toHaveLength(1);
  });

  it("is changed by a reload, and GET /admin/limits shows it, its buckets and a user's state", async () => {
    const { proxy, ask } = await start(perMinute('"user"', 4));
    await ask();
    await ask();
    const root = await proxy.login("root");
    const rules = async (query = "") =>
      (await fetch(`${proxy.url}/admin/limits${query}`, { headers: bearer(root) })).json();
    expect(await rules()).toMatchObject({
      rules: [
        { name: "global", by: [], metric: "requests", window_seconds: 1, max: 100, burst: 200 },
        { name: "rule_4", by: ["user"], window_seconds: 60, max: 4, buckets: 1, evicted: 0, refused: 0 },
      ],
    });
    expect(await rules("?user=alice")).toMatchObject({
      user: "alice",
      states: [{ rule: "global" }, { rule: "rule_4", remaining: 2, max: 4 }],
    });
    expect(await rules("?user=nobody")).toMatchObject({ error: { code: "not_found" } });

    await writeFile(
      `${proxy.folder}/config.toml`,
      proxy.configText(perMinute('"user"', 2).replace("rule_2", "rule_4")),
    );
    await proxy.services.reload("test");
    await eventually(async () => {
      expect(await rules()).toMatchObject({ rules: [{}, { name: "rule_4", max: 2, buckets: 1 }] });
    });
    expect((await ask()).status).toBe(200);
    expect((await ask()).status).toBe(429);
  });
});
