import { describe, expect, it, onTestFinished } from "vitest";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const settings = `[quota]
timezone = "Asia/Shanghai"
[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 1
cache_miss = 1
output = 1
[storage]
segment_bytes = 4096
snapshot_interval_seconds = 0.02
`;

interface Line {
  readonly kind?: string;
  readonly user?: string;
  readonly cost_nano?: number;
  readonly end?: boolean;
  readonly rows?: number;
}

async function start(): Promise<RunningProxy> {
  const users = Object.fromEntries(
    [
      ["alice", ""],
      ["bob", ""],
      ["boss", 'roles = ["admin"]\n'],
      ["eve", 'roles = ["auditor"]\n'],
    ].map(([name = "", rest]) => [name, userFile(name, alicePassword, rest)]),
  );
  const proxy = await startProxy({ config: settings, users });
  onTestFinished(() => proxy.dispose());
  return proxy;
}

async function chat({ url, login }: RunningProxy, user: string): Promise<void> {
  const body = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };
  await (await post(`${url}/chat/completions`, body, bearer(await login(user)))).text();
}

async function get({ url, login }: RunningProxy, user: string, query: string, path = "/admin/usage/export") {
  return fetch(`${url}${path}${query}`, { headers: bearer(await login(user)) });
}

describe("GET /admin/usage/export", () => {
  it("has each request of all users, whose sum is the usage, for admins and auditors alone", async () => {
    const proxy = await start();
    for (const user of ["alice", "bob", "alice", "alice"]) await chat(proxy, user);
    const linesOf = async (query: string, user = "boss"): Promise<Line[]> => {
      const text = await (await get(proxy, user, query)).text();
      return text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Line);
    };
    const lines = await linesOf("", "eve");
    expect(lines.map(({ user }) => user)).toEqual(["alice", "bob", "alice", "alice", undefined]);
    expect(lines[0]).toMatchObject({ kind: "request", model: "sim-fast", outcome: "completed", currency: "CNY" });
    expect(lines[0]).toMatchObject({ provider: expect.any(String), price: "*@always 1/1/1/1" });
    expect(lines.at(-1)).toEqual({ end: true, rows: 4, complete: true, kept_from: null });
    const usage = (await (await get(proxy, "boss", "", "/admin/usage")).json()) as {
      rows: { costs: { cost: string }[] }[];
    };
    const sum = lines.reduce((total, { cost_nano: nano = 0 }) => total + nano, 0);
    expect(sum).toBeGreaterThan(0);
    expect(Number(usage.rows[0]?.costs[0]?.cost) * 1e9).toBeCloseTo(sum, 3);
    expect(await linesOf("?user=bob&from=2020-01-01")).toHaveLength(2);
    expect(await linesOf("?to=2020-01-01")).toEqual([{ end: true, rows: 0, complete: true, kept_from: null }]);
    expect(await linesOf(`?from=${new Date(Date.now() + 60_000).toISOString()}`)).toHaveLength(1);
    expect((await get(proxy, "alice", "")).status).toBe(403);
  });

  it("is a file named after what is in it", async () => {
    const proxy = await start();
    await chat(proxy, "alice");
    const answer = await get(proxy, "boss", "?format=csv&from=2026-01-01&user=alice&model=a%22%2Fb");
    expect(answer.headers.get("content-type")).toBe("text/csv; charset=utf-8");
    expect(answer.headers.get("content-disposition")).toBe(
      'attachment; filename="requests_2026-01-01_now_user-alice_model-a--b_Asia-Shanghai.csv"',
    );
    expect((await answer.text()).split("\r\n")).toEqual([
      expect.stringMatching(/^kind,request_id,time,/),
      expect.stringMatching(/^end,.*,complete,,,0 rows,$/),
      "",
    ]);
  });

  it("refuses what it doesn't know, and names the field", async () => {
    const proxy = await start();
    const refused = [
      ["from=yesterday", "from"],
      ["to=2026-13-01", "to"],
      ["from=2026-11-02&to=2026-11-01", "from"],
      ["from=2026-11-01T00:00:00", "from"],
      ["format=xml", "format"],
      ["user=No%20One", "user"],
      ["key=1", "key"],
      ["user=a&user=b", "user"],
    ] as const;
    for (const [query, field] of refused) {
      const answer = await get(proxy, "boss", `?${query}`);
      const { error } = (await answer.json()) as { error: { code: string; param: string | null; message: string } };
      expect({ query, status: answer.status, code: error.code }).toEqual({
        query,
        status: 400,
        code: "invalid_request",
      });
      expect(`${error.param ?? ""} ${error.message}`).toContain(field);
    }
  });

  it("goes on when a client leaves in the middle, and lets only a few run at once", async () => {
    const proxy = await start();
    for (let n = 0; n < 3; n++) await chat(proxy, "alice");
    for (let n = 0; n < 8; n++) {
      const leaving = new AbortController();
      const headers = bearer(await proxy.login("boss"));
      const answer = await fetch(`${proxy.url}/admin/usage/export`, { headers, signal: leaving.signal });
      expect(answer.status).toBe(200);
      leaving.abort();
    }
    await expect.poll(async () => (await get(proxy, "boss", "")).status).toBe(200);
  });
});
