import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startAdminProxy, type AdminProxy } from "../support/admin-users.ts";
import { startProxy } from "../support/start-proxy.ts";

const nested = (depth: number): object => (depth === 0 ? {} : { a: [nested(depth - 1)] });
const limit = { metric: "tokens", per: "day", max: 1 };

/** Terms of an API key, and the field at fault where they can't be kept. */
const keyTerms: readonly (readonly [terms: Readonly<Record<string, unknown>>, param: string | null])[] = [
  [{ addresses: ["::ffff:9.8.7.6/64"] }, "addresses.0"],
  [{ addresses: ["10.0.0.0/8", "::ffff:0:0/95"] }, "addresses.1"],
  [{ addresses: ["::ffff:9.8.7.6/129"] }, "addresses.0"],
  [{ addresses: ["10.0.0.0/33"] }, "addresses.0"],
  [{ addresses: ["10.0.0.0/"] }, "addresses.0"],
  [{ addresses: ["10.0.0.256"] }, "addresses.0"],
  [{ addresses: ["host.example"] }, "addresses.0"],
  [{ addresses: [""] }, "addresses.0"],
  [{ addresses: ["::ffff:9.8.7.6/96", "::ffff:9.8.7.6", "::/0", "fe80::1", "0.0.0.0/0"] }, null],
  [{ expires_at: "9999-12-31T23:00:00-08:00" }, "expires_at"],
  [{ expires_at: "9999-12-31T23:59:59.999-00:01" }, "expires_at"],
  [{ expires_at: "+010000-01-01T00:00:00Z" }, "expires_at"],
  [{ expires_at: "0001-01-01T00:00:00+08:00" }, "expires_at"],
  [{ expires_at: "2099-02-30T00:00:00Z" }, "expires_at"],
  [{ expires_at: "2099-01-01T00:00:00" }, "expires_at"],
  [{ expires_at: "9999-12-31T23:59:59.999Z" }, null],
  [{ expires_at: "2099-01-01T00:00:00.123456789+14:00" }, null],
  [{ models: ["\ud800"] }, "models.0"],
  [{ models: ["ok", "a\udfff*"] }, "models.1"],
  [{ models: ["a".repeat(201)] }, "models.0"],
  [{ models: ['"quoted"', "new\nline", "\u0000", "\u007f", "'''", "模型", "🔑*"] }, null],
  [{ name: "\ud800" }, "name"],
  [{ name: "tab\there" }, "name"],
  [{ name: `"'\\ # ]]` }, null],
  [{ limits: [{ ...limit, max: 1.5 }] }, "limits.0.max"],
  [{ limits: [{ ...limit, max: 2 ** 53 }] }, "limits.0.max"],
  [{ limits: [{ ...limit, max: -1 }] }, "limits.0.max"],
  [{ limits: [limit, limit] }, "limits.1"],
  [{ limits: [{ metric: "cost", per: "total", currency: "CNY", max: 1e-10 }] }, "limits.0.max"],
  [{ limits: [{ metric: "cost", per: "total", currency: "XXL", max: 1 }] }, "limits.0.currency"],
  [{ limits: [{ metric: "cost", per: "total", currency: "CNY", max: 1e-9 }] }, null],
  [
    {
      limits: [
        { ...limit, max: -0 },
        { ...limit, per: "total", max: 2 ** 53 - 1 },
      ],
    },
    null,
  ],
];

/** Fields of a user, and the field at fault where they can't be kept. */
const userFields: readonly (readonly [fields: Readonly<Record<string, unknown>>, param: string | null])[] = [
  [{ expires_at: "9999-12-31T23:00:00-08:00" }, "expires_at"],
  [{ active_from: "0000-01-01T00:00:00Z" }, "active_from"],
  [{ banned_until: "9999-12-31T23:59:59-00:30" }, "banned_until"],
  [{ expires_at: "9999-12-31T23:59:59Z", active_from: "0001-01-01T00:00:00Z" }, null],
  [{ ban_reason: "\udc00" }, "ban_reason"],
  [{ ban_reason: "line\nbreak \u0000 \" ''' \\" }, null],
  [{ limits: [limit, limit] }, "limits.1"],
  [{ limits: [{ metric: "cost", per: "day", max: 9_007_199.254740991 }] }, "limits.0.max"],
  [{ grants: [{ metric: "tokens", per: "day", amount: 1, reason: "\ud800" }] }, "grants.0.reason"],
  [{ grants: [{ metric: "tokens", per: "day", amount: 1, until: "9999-12-31T23:00:00-08:00" }] }, null],
  [{ grants: [{ metric: "tokens", per: "day", amount: 1, until: "9999-12-31" }] }, null],
  [{ grants: [{ metric: "tokens", per: "day", amount: 1.5 }] }, "grants.0.amount"],
  [{ metadata: { a: null } }, "metadata"],
  [{ metadata: { a: "\ud800" } }, "metadata"],
  [{ metadata: { "\udfff": 1 } }, "metadata"],
  [{ metadata: { a: 1e30, b: -0.1, c: 1e-300, d: [1, [2.5, "x"]], e: {}, f: [] } }, null],
  [{ metadata: { a: 2 ** 60 } }, null],
  [{ metadata: { a: 2 ** 64 } }, null],
  [{ metadata: { a: [{ b: 2 ** 70 }] } }, null],
  [{ metadata: { a: 1e21, b: -(2 ** 63) } }, null],
  [{ metadata: nested(90) }, null],
  [{ metadata: { "": "empty", "a.b": { 'q"': "'" }, constructor: 1, toString: [{}] } }, null],
];

describe("I2, I3: a value that is saved can be read again, and one that can't is refused", () => {
  let proxy: AdminProxy;

  beforeAll(async () => {
    proxy = await startAdminProxy();
  });

  afterAll(() => proxy.dispose());

  /** What a start on the same files finds wrong, and the answers of some routes then. */
  async function afterRestart(routes: readonly string[]): Promise<readonly unknown[]> {
    await proxy.stop();
    const again = await startProxy({ folder: proxy.folder });
    const { url, stop } = again;
    const answers = await Promise.all(
      routes.map(async (path) => {
        const authorization = `Bearer ${proxy.admin}`;
        return (await fetch(`${url}${path}`, { headers: { authorization } })).json();
      }),
    );
    const { checks } = (await (await fetch(`${url}/healthz`)).json()) as { checks: Record<string, object> };
    expect(checks.accounts).toMatchObject({ ok: true, problems: [] });
    await stop();
    return answers;
  }

  it("in keys, users, changes of users and grants", async () => {
    for (const [terms, param] of keyTerms) {
      const answer = await proxy.send("POST /auth/keys", { name: "key", ...terms });
      expect({ terms, ...outcomeOf(answer) }).toEqual({ terms, ...expectedOf(param, 201) });
    }
    await proxy.add("changed");
    for (const [index, [fields, param]] of userFields.entries()) {
      const made = await proxy.add(`made${index}`, fields);
      expect({ fields, ...outcomeOf(made) }).toEqual({ fields, ...expectedOf(param, 201) });
      const changed = await proxy.send("PATCH /admin/users/changed", fields);
      expect({ fields, ...outcomeOf(changed) }).toEqual({ fields, ...expectedOf(param, 200) });
    }
    const granted = { metric: "requests", per: "month", amount: 1, reason: "so" };
    for (const until of ["9999-12-31T23:00:00-08:00", "9999-12-31T23:59:59Z"]) {
      const answer = await proxy.send("POST /admin/users/root/quota/grant", { ...granted, until });
      expect(outcomeOf(answer)).toEqual(expectedOf(until.endsWith("Z") ? null : "until", 200));
    }

    const routes = ["/auth/keys", "/admin/users?limit=500", "/admin/users/root/quota", "/admin/users/root/keys"];
    const before = await Promise.all(routes.map(async (path) => (await proxy.send(`GET ${path}`)).body));
    expect(await afterRestart(routes)).toEqual(before);
    const text = await readFile(join(proxy.folder, "users", "root.keys.toml"), "utf8");
    expect(text.match(/\[\[keys\]\]/g)).toHaveLength(keyTerms.filter(([, param]) => param === null).length);
  });
});

function outcomeOf({ status, body }: { status: number; body: { error?: { code: string; param: string | null } } }) {
  return { status, code: body.error?.code ?? null, param: body.error?.param ?? null };
}

function expectedOf(param: string | null, status: number) {
  if (param === null) return { status, code: null, param };
  return { status: 400, code: "invalid_request", param };
}
