import { writeFile } from "node:fs/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { jsonOf } from "../support/accounts.ts";
import { startAdminApi } from "../support/admin-api.ts";
import { alicePassword, bearer, post, startProxy, userFile } from "../support/start-proxy.ts";

const [home, away, other] = ["192.0.2.7", "198.51.100.9", "2001:db8::1"];

/** A proxy behind another one, which names the client's address. */
async function start(config = "", users: Readonly<Record<string, string>> = {}) {
  const proxy = await startProxy({
    server: 'trust_proxy = ["127.0.0.1"]',
    users: { alice: userFile("alice", alicePassword), bob: userFile("bob", alicePassword), ...users },
    configFile: true,
    config,
  });
  onTestFinished(() => proxy.dispose());
  const from = (ip: string) => ({ "x-forwarded-for": ip });
  const get = (path: string, ip: string, token?: string) =>
    jsonOf(fetch(`${proxy.url}${path}`, { headers: { ...from(ip), ...(token === undefined ? {} : bearer(token)) } }));
  const logIn = (ip: string, username = "alice", password = alicePassword) =>
    jsonOf<{ token: string }>(post(`${proxy.url}/auth/login`, { username, password }, from(ip)));
  return { proxy, from, get, logIn };
}

const refused = { status: 403, body: { error: { code: "address_not_allowed" } } };

describe("[access]", () => {
  it("lets in only what allow names and deny doesn't; probes are answered all the same", async () => {
    const { get, logIn } = await start('[access]\nallow = ["192.0.2.0/24", "2001:db8::/32"]\ndeny = ["192.0.2.7"]');
    const inside = await logIn("192.0.2.8");
    expect(inside.status).toBe(200);
    expect((await get("/v1/models", "192.0.2.8", inside.body.token)).status).toBe(200);
    expect((await logIn("::ffff:192.0.2.8")).status).toBe(200);
    expect((await logIn(other)).status).toBe(200);
    for (const ip of ["192.0.2.8:5678", "[2001:db8::1]:443", "[2001:db8::1]", "192.0.2.8:1, 127.0.0.1:2"])
      expect((await logIn(ip)).status).toBe(200);
    for (const ip of [home, `${home}:5678`, `::ffff:${home}`, `${home}:1, 127.0.0.1:2`, away, "2001:db9::1"]) {
      expect(await logIn(ip)).toMatchObject(refused);
      expect(await get("/v1/models", ip, inside.body.token)).toMatchObject(refused);
      expect((await get("/livez", ip)).status).toBe(200);
      expect((await get("/healthz", ip)).status).toBe(200);
    }
  });

  it("is reloaded while the proxy runs", async () => {
    const { proxy, get, logIn } = await start();
    const { token } = (await logIn(home)).body;
    expect((await get("/v1/models", home, token)).status).toBe(200);
    const use = async (config: string) => {
      await writeFile(`${proxy.folder}/config.toml`, proxy.configText(config));
      await proxy.services.reload("test");
    };
    await use('[access]\ndeny = ["192.0.2.0/24"]');
    expect(await get("/v1/models", home, token)).toMatchObject(refused);
    expect((await get("/v1/models", away, token)).status).toBe(200);
    await use("");
    expect((await get("/v1/models", home, token)).status).toBe(200);
  });
});

describe("the lists of a user and of a key", () => {
  it("bind the user's tokens, keys and logins, and reveal nothing without the password", async () => {
    const { get, logIn } = await start("", {
      alice: userFile("alice", alicePassword, 'allow_addresses = ["192.0.2.0/24"]\n'),
      bob: userFile("bob", alicePassword, 'deny_addresses = ["198.51.100.0/24"]\n'),
    });
    const alice = (await logIn(home)).body.token;
    expect((await get("/v1/models", home, alice)).status).toBe(200);
    expect(await get("/v1/models", away, alice)).toMatchObject(refused);
    expect(await logIn(away)).toMatchObject(refused);
    expect(await logIn(away, "alice", "wrong password")).toMatchObject({ status: 401 });
    const bob = (await logIn(home, "bob")).body.token;
    expect((await get("/v1/models", other, bob)).status).toBe(200);
    expect(await get("/v1/models", away, bob)).toMatchObject(refused);
  });

  it("hold for keys too, which have lists of their own", async () => {
    const { proxy, from, get, logIn } = await start("", {
      alice: userFile("alice", alicePassword, 'deny_addresses = ["2001:db8::/48"]\n'),
    });
    const { token } = (await logIn(home)).body;
    const terms = { name: "k", deny_addresses: ["198.51.100.0/24"] };
    const made = await jsonOf<{ key: string; deny_addresses: readonly string[] }>(
      post(`${proxy.url}/auth/keys`, terms, { ...bearer(token), ...from(home) }),
    );
    expect(made).toMatchObject({ status: 201, body: { deny_addresses: ["198.51.100.0/24"] } });
    expect((await get("/v1/models", home, made.body.key)).status).toBe(200);
    for (const ip of [away, other]) expect(await get("/v1/models", ip, made.body.key)).toMatchObject(refused);
    const bad = await jsonOf(
      post(`${proxy.url}/auth/keys`, { ...terms, deny_addresses: ["10.0.0.300"] }, { ...bearer(token), ...from(home) }),
    );
    expect(bad).toMatchObject({ status: 400, body: { error: { param: "deny_addresses.0" } } });
  });

  it("are set and removed by administrators", async () => {
    const api = await startAdminApi();
    const patch = (body: object) => api.as("boss", "PATCH", "/admin/users/alice", body);
    expect(await patch({ deny_addresses: ["127.0.0.0/8"] })).toMatchObject({
      status: 200,
      body: { deny_addresses: ["127.0.0.0/8"], allow_addresses: null },
    });
    await expect(api.proxy.login("alice")).rejects.toThrow(/address_not_allowed/);
    expect((await patch({ deny_addresses: ["x"] })).status).toBe(400);
    expect(await patch({ deny_addresses: null })).toMatchObject({ status: 200, body: { deny_addresses: null } });
    expect(await api.proxy.login("alice")).toBeTypeOf("string");
  });
});
