import { afterEach, describe, expect, it, vi } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const dayMs = 86_400_000;
/** A token from before a step of the clock would have expired. */
const settings = `[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 1
cache_miss = 1
output = 1
[auth]
login_reuse_seconds = 0
`;

interface Row {
  readonly user?: string;
  readonly day?: string;
  readonly model?: string;
  readonly requests: number;
  readonly tokens: number;
  readonly costs: readonly { readonly cost: string; readonly currency: string }[];
}

interface Usage {
  readonly from: string;
  readonly to: string;
  readonly rows: readonly Row[];
}

describe("usage", () => {
  let proxy: RunningProxy | undefined;
  /** Noon in Shanghai. */
  let now = 0;
  const clock: Clock = { now: () => now, monotonic: systemClock.monotonic };

  afterEach(() => proxy?.dispose());

  async function start(config = ""): Promise<RunningProxy> {
    now = Date.parse("2026-11-22T04:00:00Z");
    const users = {
      alice: userFile("alice", alicePassword),
      bob: userFile("bob", alicePassword),
      boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
      eve: userFile("eve", alicePassword, 'roles = ["auditor"]\n'),
    };
    return (proxy = await startProxy({ config: settings + config, users, clock }));
  }

  async function chat({ url, login }: RunningProxy, user: string, model = "sim-fast"): Promise<void> {
    const body = { model, stream: false, messages: [{ role: "user", content: "hi" }] };
    const answer = await post(`${url}/chat/completions`, body, bearer(await login(user)));
    expect(answer.status).toBe(200);
    await answer.text();
  }

  async function get({ url, login }: RunningProxy, user: string, path: string): Promise<Response> {
    return fetch(url + path, { headers: bearer(await login(user)) });
  }

  async function usage(running: RunningProxy, user: string, path: string): Promise<Usage> {
    const answer = await get(running, user, path);
    expect(answer.status).toBe(200);
    return (await answer.json()) as Usage;
  }

  it("of one request is what the ledger has settled, exact beside another at once, and the caller's own", async () => {
    const running = await start();
    const [token, bobs] = [await running.login(), await running.login("bob")];
    const one = (id: string, bearerToken = token) =>
      fetch(`${running.url}/auth/usage/requests/${id}`, { headers: bearer(bearerToken) });
    const ask = async (content: string) => {
      const body = {
        model: "sim-fast",
        stream: true,
        stream_options: { include_usage: true },
        messages: [{ role: "user", content }],
      };
      const answer = await post(`${running.url}/chat/completions`, body, bearer(token));
      const id = answer.headers.get("x-request-id") ?? "";
      // It is running, or has just ended.
      expect([200, 404]).toContain((await one(id)).status);
      const events = (await answer.text()).split("\n").filter((line) => line.includes('"usage":{'));
      const { usage: reported } = JSON.parse(events.at(-1)?.slice("data: ".length) ?? "") as {
        usage: { prompt_tokens: number; completion_tokens: number };
      };
      return { id, input: reported.prompt_tokens, output: reported.completion_tokens };
    };
    const asked = await Promise.all([
      ask("hi"),
      ask("a far longer question, with many more words in it than the other has"),
    ]);
    expect(asked[0].input).not.toBe(asked[1].input);
    let sum = 0;
    for (const { id, input, output } of asked) {
      const response = await vi.waitUntil(async () => {
        const found = await one(id);
        return found.status === 200 && found;
      });
      const cost = String((input + output) / 1_000_000);
      expect(await response.json()).toMatchObject({
        request_id: id,
        model: "sim-fast",
        outcome: "completed",
        cost,
        currency: "CNY",
        estimated: false,
        input_tokens: input,
        output_tokens: output,
        tokens: input + output,
        requests: 1,
        api_key: "",
        group: "",
      });
      sum += input + output;
      const refused = await answerOf(await one(id, bobs));
      expect(refused).toMatchObject({ status: 404, body: expect.stringContaining(`"code":"not_found"`) as string });
    }
    expect((await answerOf(await one("never-sent"))).status).toBe(404);
    const { rows } = await usage(running, "alice", "/auth/usage");
    expect(rows[0]?.costs).toEqual([{ cost: String(sum / 1_000_000), currency: "CNY" }]);
  });

  it("of the caller is told by day, by model, or by both, with exact costs as text", async () => {
    const running = await start();
    await chat(running, "alice");
    now += dayMs;
    await chat(running, "alice");
    await chat(running, "alice", "sim-no-usage");
    await chat(running, "bob");
    const byDay = await usage(running, "alice", "/auth/usage");
    expect(byDay).toMatchObject({ from: "2026-10-25", to: "2026-11-23", timezone: "Asia/Shanghai" });
    expect(byDay.rows).toMatchObject([
      { day: "2026-11-22", requests: 1, outcomes: { completed: 1 }, estimated_requests: 0, unsettled_requests: 0 },
      { day: "2026-11-23", requests: 2, estimated_requests: 1 },
    ]);
    for (const { tokens, costs } of byDay.rows) {
      expect(tokens).toBeGreaterThan(0);
      // One yuan a million tokens.
      expect(costs).toEqual([{ cost: `0.${String(tokens).padStart(6, "0")}`.replace(/0+$/, ""), currency: "CNY" }]);
    }
    const byModel = await usage(running, "alice", "/auth/usage?by=model&from=2026-11-01");
    expect(byModel.rows).toMatchObject([
      { model: "sim-fast", requests: 2, estimated_requests: 0 },
      { model: "sim-no-usage", requests: 1, estimated_requests: 1 },
    ]);
    expect((await usage(running, "alice", "/auth/usage?by=both&from=2026-11-23&to=2026-11-23")).rows).toHaveLength(2);
  });

  it.each([
    ["/auth/usage?from=2026-11-31", "from"],
    ["/auth/usage?from=yesterday", "from"],
    ["/auth/usage?from=2026-11-23&to=2026-11-22", "from"],
    ["/auth/usage?from=2026-01-01&to=2026-11-22", "from"],
    ["/auth/usage?by=hour", "by"],
    ["/admin/usage?user=../x", "user"],
    ["/admin/usage?format=xml", "format"],
  ])("asked for as %s is refused", async (path, param) => {
    const running = await start();
    const answer = await get(running, "boss", path);
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { code: "invalid_request", param } });
  });

  it("of the first days that a date can name is empty", async () => {
    const { from, rows } = (await usage(await start(), "alice", "/auth/usage?to=0000-01-01")) as Usage & {
      from: string;
    };
    expect([from, rows]).toEqual(["0000-01-01", []]);
  });

  it("of others is for admins and auditors alone, from allowed addresses alone", async () => {
    const running = await start();
    await chat(running, "alice");
    for (const user of ["boss", "eve"]) {
      expect((await usage(running, user, "/admin/usage?user=alice")).rows).toMatchObject([
        { user: "alice", requests: 1 },
      ]);
    }
    expectRefusal(running, await answerOf(await get(running, "alice", "/admin/usage")), "forbidden");
    await running.dispose();
    const elsewhere = await start('[admin]\nallow = ["203.0.113.7"]\n');
    expectRefusal(elsewhere, await answerOf(await get(elsewhere, "boss", "/admin/usage")), "address_not_allowed");
  });

  it("of all is told together, by user, and in full", async () => {
    const running = await start();
    for (const user of ["alice", "bob", "alice"]) await chat(running, user);
    expect((await usage(running, "boss", "/admin/usage")).rows).toMatchObject([{ day: "2026-11-22", requests: 3 }]);
    expect((await usage(running, "boss", "/admin/usage?by=user")).rows).toMatchObject([
      { user: "alice", requests: 2 },
      { user: "bob", requests: 1 },
    ]);
    expect((await usage(running, "boss", "/admin/usage?by=all")).rows).toMatchObject([
      { user: "alice", day: "2026-11-22", model: "sim-fast", requests: 2 },
      { user: "bob", day: "2026-11-22", model: "sim-fast", requests: 1 },
    ]);
    expect((await usage(running, "boss", "/admin/usage?user=nobody")).rows).toEqual([]);
  });

  it("comes as CSV that no spreadsheet runs, and changes by hand with it", async () => {
    const running = await start();
    await chat(running, "alice");
    const note = { reason: "sorry", by: "boss" };
    await running.services.ledger.adjust("alice", { requests: -1, tokens: 0, cost: -5, currency: "CNY" }, note);
    const hold = await running.services.ledger.reserve({
      user: "bob",
      limits: [],
      requestId: "r",
      model: "=1+1",
      upperBound: { requests: 1, tokens: 0, cost: 0, currency: "CNY" },
    });
    await hold.commit({ requests: 1, tokens: 0, cost: 0, currency: "CNY" });
    const answer = await get(running, "boss", "/admin/usage?by=all&format=csv");
    expect(answer.headers.get("content-type")).toBe("text/csv; charset=utf-8");
    expect(answer.headers.get("content-disposition")).toContain("usage_2026-10-24_2026-11-22.csv");
    const [head, ...lines] = (await answer.text()).split("\r\n");
    expect(head).toMatch(
      /^user,day,model,requests,tokens,.*,cost,currency,adjusted_requests,adjusted_tokens,adjusted_cost$/,
    );
    expect(lines[0]).toMatch(/^alice,2026-11-22,adjust,0,0,.*,0,CNY,-1,0,-0.000000005$/);
    expect(lines[1]).toMatch(/^alice,2026-11-22,sim-fast,1,\d+,.*,0\.\d+,CNY,0,0,0$/);
    expect(lines[2]).toMatch(/^bob,2026-11-22,'=1\+1,1,0,/);
    expect(lines.slice(3)).toEqual([""]);
  });

  it("names the time before which charges of other processes may be missing, where it begins before", async () => {
    now = Date.parse("2026-11-22T04:00:00Z");
    const missing = "2026-11-20T04:00:00.000Z";
    const boss = userFile("boss", alicePassword, 'roles = ["admin"]\n');
    proxy = await startProxy({
      config: `${settings}[groups.lab]\nmembers = ["boss"]\nowners = ["boss"]\n`,
      users: { boss },
      clock,
      backends: (own) => ({ ...own, ledger: { ...own.ledger, missingBefore: () => Date.parse(missing) } }),
    });
    const paths = [
      "/admin/usage?by=day",
      "/admin/usage?by=user&top=3",
      "/auth/usage?by=model",
      "/auth/groups/lab/usage?by=day",
    ];
    for (const path of paths) {
      // In Shanghai the 20th has begun before.
      expect(await usage(proxy, "boss", `${path}&from=2026-11-20`)).toMatchObject({ missing_before: missing });
      expect(await usage(proxy, "boss", `${path}&from=2026-11-21`)).not.toHaveProperty("missing_before");
    }
    const csv = await get(proxy, "boss", "/admin/usage?by=day&from=2026-11-20&format=csv");
    expect(csv.headers.get("x-usage-missing-before")).toBe(missing);
  });

  it("is the same after a restart", async () => {
    const running = await start();
    await chat(running, "alice");
    const before = await usage(running, "boss", "/admin/usage?by=all");
    await running.stop();
    proxy = await startProxy({ config: settings, folder: running.folder, clock });
    expect(await usage(proxy, "boss", "/admin/usage?by=all")).toEqual(before);
    expect((await usage(proxy, "alice", "/auth/usage?by=both")).rows).toMatchObject([
      { model: "sim-fast", requests: 1 },
    ]);
  });
});
