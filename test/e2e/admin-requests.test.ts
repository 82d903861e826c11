import { appendFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

interface Page {
  readonly requests: readonly Record<string, unknown>[];
  readonly next_cursor: string | null;
}

describe("the requests of all users", () => {
  let proxy: RunningProxy;
  let admin: string;

  beforeAll(async () => {
    proxy = await startProxy({
      users: {
        alice: userFile("alice", alicePassword),
        bob: userFile("bob", "bobs long password"),
        root: userFile("root", "roots long password", 'roles = ["admin"]\n'),
      },
    });
    admin = await proxy.login("root", "roots long password");
    for (const token of [await proxy.login(), await proxy.login("bob", "bobs long password")]) {
      for (const model of ["sim-fast", "no-such-model"]) {
        const body = { model, stream: false, messages: [{ role: "user", content: "hi" }] };
        const response = await post(`${proxy.url}/v1/chat/completions`, body, bearer(token));
        await response.text();
      }
    }
  });
  afterAll(() => proxy.dispose());

  async function page(query: string): Promise<Page> {
    const response = await fetch(`${proxy.url}/admin/requests${query}`, { headers: bearer(admin) });
    expect(response.status).toBe(200);
    return (await response.json()) as Page;
  }

  it("come newest first, with the fields of their events, by pages", async () => {
    const { requests, next_cursor: end } = await page("");
    expect(requests.map(({ user, model }) => [user, model])).toEqual([
      ["bob", "no-such-model"],
      ["bob", "sim-fast"],
      ["alice", "no-such-model"],
      ["alice", "sim-fast"],
    ]);
    expect(end).toBeNull();
    expect(requests[1]).toMatchObject({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      request_id: expect.any(String),
      address: "127.0.0.1",
      time: expect.stringMatching(/Z$/),
      code: "ok",
      status: 200,
      provider: "simulator",
      key_id: "",
      group: "",
      output_tokens: expect.any(Number),
    });
    expect(requests[1]).not.toHaveProperty("trace_id");
    const first = await page("?limit=3");
    const rest = await page(`?limit=3&cursor=${first.next_cursor ?? ""}`);
    expect([...first.requests, ...rest.requests]).toEqual(requests);
  });

  it("are filtered here", async () => {
    const all = (await page("")).requests;
    const count = async (query: string) => (await page(query)).requests.length;
    expect(await count("?user=alice")).toBe(2);
    expect(await count("?user=alice&code=ok")).toBe(1);
    expect(await count("?model=sim-fast")).toBe(2);
    expect(await count("?provider=simulator")).toBe(2);
    expect(await count("?group=none&key_id=x")).toBe(0);
    expect(await count(`?request_id=${String(all[0]?.request_id)}`)).toBe(1);
    expect(await count("?to=2020-01-01T00:00:00Z")).toBe(0);
    expect(await count("?from=2020-01-01T00:00:00Z")).toBe(4);
    const refused = async (query: string) =>
      (await fetch(`${proxy.url}/admin/requests${query}`, { headers: bearer(admin) })).status;
    for (const query of ["?cursor=x", "?limit=0", "?user=../x", "?nothing=1", "?from=yesterday"])
      expect(await refused(query), query).toBe(400);
  });

  it("make the overview", async () => {
    const response = await fetch(`${proxy.url}/admin/overview`, { headers: bearer(admin) });
    const overview = (await response.json()) as { minutes: { ok: number; refused: number; at: string }[] };
    expect(overview.minutes).toHaveLength(60);
    expect(overview.minutes.reduce((sum, { ok }) => sum + ok, 0)).toBe(2);
    expect(overview.minutes.reduce((sum, { refused }) => sum + refused, 0)).toBe(2);
    expect(overview).toMatchObject({
      node: expect.any(String),
      shared: expect.any(Boolean),
      now: { in_flight: 0, waiting: 0, active_users: 3 },
      by_provider: [{ name: "simulator", requests: 2 }],
      attention: [{ kind: "simulated" }],
    });
  });

  it("are read by the bounded part, however long the log is", async () => {
    const folder = join(proxy.folder, "logs", "requests", "users", "all");
    await mkdir(folder, { recursive: true });
    const line = (index: number): string =>
      `{"ts":"2026-01-02T10:00:00.000Z","event":"chat.finished","trace_id":"t${index}","ip":"::1","user":"u${index % 10_000}","model":"m","code":"ok"}\n`;
    let text = "";
    for (let index = 0; index < 50_000; index++) text += line(index);
    await appendFile(join(folder, "2026-01-02.jsonl"), text);
    const empty = await page("?model=rare&to=2026-01-03T00:00:00Z");
    expect([empty.requests.length, empty.next_cursor]).toEqual([0, expect.any(String)]);
    let found: readonly Record<string, unknown>[] = [];
    let cursor = "";
    for (let tries = 0; tries < 20 && found.length === 0; tries++) {
      const next = await page(`?request_id=t1&to=2026-01-03T00:00:00Z${cursor}`);
      found = next.requests;
      cursor = `&cursor=${next.next_cursor ?? ""}`;
    }
    expect(found).toMatchObject([{ user: "u1", id: "t1" }]);
  });
});
