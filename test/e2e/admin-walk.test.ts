import { expect, it } from "vitest";
import { readAudits } from "../support/admin-api.ts";
import { routesOf } from "../support/routes.ts";
import { alicePassword, bearer, post, startProxy, userFile } from "../support/start-proxy.ts";

/** What each caller gets on routes that read, and on those that change something. */
const table = {
  "no token": ["401 missing_token", "401 missing_token"],
  "a made-up token": ["401 invalid_token", "401 invalid_token"],
  "a user": ["403 forbidden", "403 forbidden"],
  "an auditor": ["let in", "403 forbidden"],
  "an administrator": ["let in", "let in"],
  "an administrator whose account has expired": ["403 account_disabled", "403 account_disabled"],
  "an administrator who is banned": ["403 account_disabled", "403 account_disabled"],
  "an administrator who was disabled": ["403 account_disabled", "403 account_disabled"],
  "an administrator with a one-time password": ["403 password_change_required", "403 password_change_required"],
  "an administrator from elsewhere": ["403 address_not_allowed", "403 address_not_allowed"],
  "an auditor from elsewhere": ["403 address_not_allowed", "403 forbidden"],
  "an API key of an administrator": ["403 forbidden", "403 forbidden"],
} as const;

type Caller = keyof typeof table;

/** What is asked for does not exist, and the body says nothing: so those who are let in change nothing either. */
function request(method: string): { method: string; headers?: Readonly<Record<string, string>>; body?: string } {
  if (!["POST", "PATCH", "PUT"].includes(method)) return { method };
  return { method, headers: { "content-type": "application/json" }, body: "{}" };
}

/** Status and code of a refusal; "let in" where the route itself has answered. */
async function outcomeOf(answer: Response): Promise<string> {
  const { status } = answer;
  // It would not end.
  if (answer.headers.get("content-type")?.startsWith("text/event-stream") === true) {
    await answer.body?.cancel();
    return "let in";
  }
  const text = await answer.text();
  if (status !== 401 && status !== 403 && status < 500) return "let in";
  if (text === "") return String(status);
  return `${status} ${(JSON.parse(text) as { error: { code: string } }).error.code}`;
}

it("all admin routes let in those alone who may, for what they may", async () => {
  const admin = 'roles = ["admin"]\n';
  const people = { alice: "", eve: 'roles = ["auditor"]\n', boss: admin, late: admin, banned: admin, off: admin };
  const users = {
    ...Object.fromEntries(Object.entries(people).map(([name, rest]) => [name, userFile(name, alicePassword, rest)])),
    fresh: userFile("fresh", alicePassword, `${admin}must_change_password = true\n`),
  };
  const proxy = await startProxy({ users, server: 'trust_proxy = ["127.0.0.1"]\n' });
  try {
    const tokenOf = async (name: string) => bearer(await proxy.login(name));
    const boss = await tokenOf("boss");
    const key = await post(`${proxy.url}/auth/keys`, { name: "key" }, boss);
    const { key: apiKey } = (await key.json()) as { key: string };
    const elsewhere = { "x-forwarded-for": "198.51.100.7" };
    const auditor = await tokenOf("eve");
    const headers: Readonly<Record<Caller, Readonly<Record<string, string>>>> = {
      "no token": {},
      "a made-up token": bearer("made.up.token"),
      "a user": await tokenOf("alice"),
      "an auditor": auditor,
      "an administrator": boss,
      "an administrator whose account has expired": await tokenOf("late"),
      "an administrator who is banned": await tokenOf("banned"),
      "an administrator who was disabled": await tokenOf("off"),
      "an administrator with a one-time password": await tokenOf("fresh"),
      "an administrator from elsewhere": { ...boss, ...elsewhere },
      "an auditor from elsewhere": { ...auditor, ...elsewhere },
      "an API key of an administrator": bearer(apiKey),
    };
    const { users } = proxy.services;
    await users.update("late", { expires_at: new Date(Date.now() - 1000) });
    await users.update("banned", { banned_until: new Date(Date.now() + 3_600_000) });
    await users.update("off", { is_active: false });

    const routes = routesOf(proxy.server.app).filter(({ path }) => path.startsWith("/admin"));
    expect(routes.map(({ method, path }) => `${method} ${path}`)).toEqual(
      expect.arrayContaining([
        "GET /admin/users/:name/quota",
        "DELETE /admin/users/:name/sessions",
        "GET /admin/audit",
      ]),
    );
    for (const [caller, [onRead, onWrite]] of Object.entries(table)) {
      for (const { method, path } of routes) {
        const { headers: contentType, ...init } = request(method);
        const url = `${proxy.url}${path.replace(/:\w+/g, "nobody-here")}`;
        const answer = await fetch(url, { ...init, headers: { ...contentType, ...headers[caller as Caller] } });
        const expected = method === "GET" || method === "HEAD" ? onRead : onWrite;
        expect(await outcomeOf(answer), `${method} ${path} by ${caller}`).toBe(
          method === "HEAD" && expected !== "let in" ? expected.slice(0, 3) : expected,
        );
      }
    }
    expect(await readAudits(proxy.folder)).toEqual([]);
  } finally {
    await proxy.dispose();
  }
});
