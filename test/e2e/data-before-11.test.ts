import { chmod, cp, readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { runJournalCli } from "../../src/cli/journal-commands.ts";
import { ask, refresh } from "../support/accounts.ts";
import { runCli } from "../support/cli.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

const fixture = join(import.meta.dirname, "../fixtures/data-before-11");

interface Limit {
  readonly reserved: number;
  readonly remaining: number;
}
interface Quota {
  readonly limits: readonly Limit[];
  readonly grants: readonly object[];
  readonly keys: readonly { readonly limits: readonly Limit[] }[];
}

/** What the API of the program that wrote the folder said. */
interface Expected {
  readonly at: string;
  readonly keys: { readonly limited: string; readonly free: string };
  readonly refresh_token: string;
  readonly users: Readonly<Record<string, object>>;
  readonly quota: Readonly<Record<string, object>>;
  readonly usage: { readonly all: object[]; readonly key: object[]; readonly total: object[] };
  readonly sessions: number;
  readonly apiKeys: object[];
  readonly behaviour: number;
  readonly audit: number;
}

describe("data of earlier versions", () => {
  let expected: Expected;

  beforeAll(async () => {
    expected = JSON.parse(await readFile(join(fixture, "expected.json"), "utf8")) as Expected;
  });

  async function start(): Promise<{ proxy: RunningProxy; admin: string }> {
    const folder = tempDir();
    await cp(fixture, folder, { recursive: true });
    // Git doesn't keep it, and it is no secret here.
    await chmod(join(folder, "users", ".keys", "jwt"), 0o600);
    const clock = createManualClock(Date.parse(expected.at));
    const config = await readFile(join(folder, "config.toml"), "utf8");
    const proxy = await startProxy({ folder, clock, config });
    onTestFinished(() => proxy.stop());
    return { proxy, admin: await proxy.login("boss") };
  }

  it("is read with the same users, quotas, usage and logs, and again after a stop", async () => {
    const { proxy, admin } = await start();
    const get = async <T>(path: string): Promise<T> => {
      const { status, body } = await ask<T>(proxy, `GET ${path}`, admin);
      if (status !== 200) throw new Error(`${path}: ${status}`);
      return body;
    };
    const used = (limit: Limit) =>
      Object.fromEntries(Object.entries(limit).filter(([key]) => key !== "reserved" && key !== "remaining"));
    for (const [name, user] of Object.entries(expected.users)) {
      // A later version may show more.
      expect(await get(`/admin/users/${name}`)).toMatchObject(user);
      const { limits, grants, keys } = await get<Quota>(`/admin/users/${name}/quota`);
      const quota = {
        limits: limits.map(used),
        grants,
        keys: keys.map((key) => ({ ...key, limits: key.limits.map(used) })),
      };
      expect(quota).toEqual(expected.quota[name]);
      expect([...limits, ...keys.flatMap((key) => key.limits)].every(({ reserved }) => reserved === 0)).toBe(true);
    }
    const usage = async (by: string) =>
      (await get<{ rows: object[] }>(`/admin/usage?by=${by}&from=2026-11-01&to=2026-11-30`)).rows;
    expect(await usage("all")).toMatchObject(expected.usage.all);
    expect(await usage("key")).toMatchObject(expected.usage.key);
    expect(await usage("day")).toMatchObject(expected.usage.total);
    const events = async (path: string) => (await get<{ events: object[] }>(`${path}?limit=500`)).events.length;
    expect(await events("/admin/users/alice/behaviour")).toBe(expected.behaviour);
    expect(await events("/admin/audit")).toBe(expected.audit);
    expect((await get<{ sessions: object[] }>("/admin/users/alice/sessions")).sessions).toHaveLength(expected.sessions);
    expect((await get<{ keys: object[] }>("/admin/users/alice/keys")).keys).toMatchObject(expected.apiKeys);
    expect(await ask(proxy, "GET /healthz", admin)).toMatchObject({ status: 200 });

    await proxy.stop();
    const verified = await runCli(
      runJournalCli,
      ["verify", "--config", join(proxy.folder, "config.toml")],
      proxy.folder,
    );
    expect(verified).toMatchObject({ code: 0 });
  });

  it("still lets users in: by password, refresh token and API keys, and charges on top", async () => {
    const { proxy } = await start();
    expect(await proxy.login("alice")).toMatch(/\./);
    expect(await refresh(proxy, expected.refresh_token)).toMatchObject({ status: 200 });
    for (const key of Object.values(expected.keys)) {
      const body = { model: "sim-fast", max_tokens: 5, messages: [{ role: "user", content: "hi" }] };
      expect((await post(`${proxy.url}/v1/chat/completions`, body, bearer(key))).status).toBe(200);
    }
    const logIn = (username: string) =>
      post(`${proxy.url}/auth/login`, { username, password: "correct horse battery" }).then(({ status }) => status);
    expect([await logIn("carol"), await logIn("dora"), await logIn("erin")]).toEqual([403, 401, 403]);
  });
});
