import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { startAdminApi, type AdminApi } from "../support/admin-api.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { bearer, post } from "../support/start-proxy.ts";

interface Event {
  readonly ts: string;
  readonly event: string;
  readonly model?: string;
  readonly subject?: string;
}

const noon = Date.parse("2026-11-22T04:00:00Z");
const minuteMs = 60_000;

async function chat({ proxy }: AdminApi, model = "sim-fast"): Promise<void> {
  const body = { model, stream: false, messages: [{ role: "user", content: "hi" }] };
  await (await post(`${proxy.url}/chat/completions`, body, bearer(await proxy.login()))).text();
}

/** All pages, one after the other. */
async function pages(api: AdminApi, path: string): Promise<Event[][]> {
  const found: Event[][] = [];
  let cursor: string | null = null;
  do {
    const { status, body } = await api.get(`${path}${cursor === null ? "" : `&cursor=${cursor}`}`);
    expect(status).toBe(200);
    found.push(body.events as Event[]);
    cursor = body.next_cursor as string | null;
  } while (cursor !== null);
  return found;
}

describe("what a user did", () => {
  it("is shown at once, the newest first, page by page", async () => {
    const api = await startAdminApi();
    for (const model of ["sim-fast", "sim-none", "sim-no-usage"]) await chat(api, model);
    const { body } = await api.get("/admin/users/alice/behaviour");
    const chats = (body.events as Event[]).filter(({ event }) => event === "chat.finished");
    expect(chats.map(({ model }) => model)).toEqual(["sim-no-usage", "sim-none", "sim-fast"]);
    expect(chats[1]).toMatchObject({ code: "model_not_found", user: "alice" });
    expect((body.events as Event[]).at(-1)).toMatchObject({ event: "login.succeeded" });
    const paged = await pages(api, "/admin/users/alice/behaviour?limit=2");
    expect(paged.slice(0, 2).map((page) => page.length)).toEqual([2, 2]);
    expect(paged.flat()).toEqual(body.events);
  });

  it("is found by type and by time", async () => {
    const clock = createManualClock(noon);
    const api = await startAdminApi({ clock });
    await chat(api);
    clock.advance(minuteMs);
    await chat(api, "sim-no-usage");
    const models = async (query: string): Promise<(string | undefined)[]> =>
      (await pages(api, `/admin/users/alice/behaviour?${query}`)).flat().map(({ model }) => model);
    expect(await models("type=chat.finished")).toEqual(["sim-no-usage", "sim-fast"]);
    expect(await models("type=chat.finished&to=2026-11-22T12:00:30%2B08:00")).toEqual(["sim-fast"]);
    expect(await models("type=chat.finished&from=2026-11-22T04:00:30Z")).toEqual(["sim-no-usage"]);
    expect(await models("type=chat")).toEqual([]);
    expect(await models("from=2026-11-22T04:02:00Z")).toEqual([]);
  });

  it("is there for made-up names together, for users without a log, and for no other name", async () => {
    const api = await startAdminApi();
    await post(`${api.proxy.url}/auth/login`, { username: "ghost", password: "whatever it is" });
    const { body } = await api.get("/admin/users/_unknown/behaviour");
    expect(body.events).toMatchObject([{ event: "login.failed", user: "ghost" }]);
    expect(await api.get("/admin/users/bob/behaviour")).toEqual({
      status: 200,
      body: { events: [], next_cursor: null },
    });
    for (const name of ["..%2f_unknown", "_other", "Alice", "a".repeat(33)]) {
      expect(await api.get(`/admin/users/${name}/behaviour`)).toMatchObject({ status: 404 });
    }
  });

  it.each([
    ["limit=0", "limit"],
    ["limit=1001", "limit"],
    ["limit=ten", "limit"],
    ["from=yesterday", "from"],
    ["to=2026-11-22", "to"],
    ["cursor=nonsense", "cursor"],
    ["kind=chat.finished", "kind"],
  ])("cannot be asked for with %s", async (query, param) => {
    const api = await startAdminApi();
    for (const path of ["/admin/users/alice/behaviour", "/admin/audit"]) {
      expect(await api.get(`${path}?${query}`)).toMatchObject({ status: 400, body: { error: { param } } });
    }
  });
});

describe("the audit log", () => {
  it("is shown the newest first, page by page, and filtered by user, administrator, action and time", async () => {
    const clock = createManualClock(noon);
    const api = await startAdminApi({ clock });
    const adjust = (by: string, user: string) =>
      api.as(by, "POST", `/admin/users/${user}/quota/adjust`, { requests: 1, reason: `${by} for ${user}` });
    for (const [by, user] of [
      ["boss", "alice"],
      ["chief", "bob"],
      ["boss", "bob"],
    ] as const) {
      expect((await adjust(by, user)).status).toBe(200);
      clock.advance(minuteMs);
    }
    await api.post("/admin/users/alice/quota/reset", { per: "day", reason: "anew" });
    const reasons = async (query: string): Promise<unknown[]> =>
      (await pages(api, `/admin/audit?${query}`)).flat().map((event) => (event as { reason?: string }).reason);
    const all = ["anew", "boss for bob", "chief for bob", "boss for alice"];
    expect(await reasons("limit=1")).toEqual(all);
    expect(await reasons("user=alice")).toEqual(["anew", "boss for alice"]);
    expect(await reasons("user=alice&limit=1&action=quota.adjusted")).toEqual(["boss for alice"]);
    expect(await reasons("by=chief")).toEqual(["chief for bob"]);
    expect(await reasons("action=quota.reset")).toEqual(["anew"]);
    expect(await reasons("from=2026-11-22T04:01:00Z&to=2026-11-22T04:02:00Z")).toEqual(["chief for bob"]);
    expect(await reasons("by=nobody")).toEqual([]);
  });

  it("takes no cursor of a user's log", async () => {
    const api = await startAdminApi();
    await chat(api);
    const { body } = await api.get("/admin/users/alice/behaviour?limit=1");
    expect(body.next_cursor).toEqual(expect.any(String));
    const answer = await api.get(`/admin/audit?cursor=${body.next_cursor}`);
    expect(answer).toMatchObject({ status: 400, body: { error: { param: "cursor" } } });
  });

  it("is kept for logs.audit_keep_days", async () => {
    const clock = createManualClock(noon);
    const first = await startAdminApi({ clock });
    const { folder } = first.proxy;
    await first.proxy.stop();
    const audit = join(folder, "logs", "audit");
    await mkdir(audit, { recursive: true });
    const days = ["2025-10-17", "2025-10-18", "2026-11-21"];
    for (const day of days) {
      const line = { ts: `${day}T00:00:00.000Z`, event: "admin.changed", subject: day };
      await writeFile(join(audit, `${day}.jsonl`), `${JSON.stringify(line)}\n`);
    }
    // Old files are looked for at the start, and a stop waits for that.
    await (await startAdminApi({ clock, folder })).proxy.stop();
    const api = await startAdminApi({ clock, folder });
    const subjects = (await pages(api, "/admin/audit?limit=10")).flat().map(({ subject }) => subject);
    expect(subjects).toEqual(["2026-11-21", "2025-10-18"]);
  });
});

describe("active users", () => {
  it("are those who have chatted or logged in lately, with counts", async () => {
    const clock = createManualClock(noon);
    const api = await startAdminApi({ clock });
    await chat(api);
    await chat(api, "sim-none");
    clock.advance(4 * minuteMs);
    await api.get("/admin/active-users");
    clock.advance(minuteMs);
    const { body } = await api.as("eve", "GET", "/admin/active-users");
    expect(body).toMatchObject({ window_seconds: 300 });
    const users = body.users as { user: string }[];
    expect(users.map(({ user }) => user).sort()).toEqual(["boss", "eve"]);
    await chat(api);
    const again = await api.get("/admin/active-users");
    expect(again.body.users).toContainEqual({
      user: "alice",
      chats: 1,
      failed: 0,
      logins: 1,
      since: "2026-11-22T04:05:00.000Z",
      last_seen_at: "2026-11-22T04:05:00.000Z",
    });
  });
});
