import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { argon2id } from "../../src/identity/passwords/password.ts";
import { bearer, post, skipOverRedis, startProxy, userFile, type ProxyOptions } from "../support/start-proxy.ts";

const password = "a long password";
const open = '[security]\nregistration = "invitation"\n';
const tiers = `[quota.tiers.basic]
limits = [{ metric = "tokens", per = "total", max = 1000000 }]
[quota.tiers.guest]
limits = [{ metric = "tokens", per = "day", max = 10 }]
[groups.fixed]
owners = ["reserved"]
`;
const root = userFile("root", password, 'roles = ["admin"]\n');

interface Answer {
  readonly status: number;
  readonly code: string | undefined;
  readonly reason: string | undefined;
  readonly body: Readonly<Record<string, unknown>>;
}

async function start(options: ProxyOptions = {}) {
  const proxy = await startProxy({ config: tiers + open, users: { root }, ...options });
  onTestFinished(() => proxy.dispose());
  const admin = await proxy.login("root", password);
  const register = async (username: string, code: string, fields: object = {}, ip?: string): Promise<Answer> => {
    const headers = ip === undefined ? {} : { "x-forwarded-for": ip };
    const response = await post(`${proxy.url}/auth/register`, { username, password, code, ...fields }, headers);
    const body = (await response.json()) as Answer["body"];
    const error = body.error as { code?: string; details?: { reason?: string } } | undefined;
    return { status: response.status, code: error?.code, reason: error?.details?.reason, body };
  };
  const make = async (fields: object = {}): Promise<string[]> => {
    const wanted = { kind: "invitation", name: "guests", ...fields };
    const response = await post(`${proxy.url}/admin/codes`, wanted, bearer(admin));
    expect(response.status).toBe(201);
    return ((await response.json()) as { codes: string[] }).codes;
  };
  const get = async (path: string): Promise<unknown> =>
    (await fetch(`${proxy.url}${path}`, { headers: bearer(admin) })).json();
  const usesOf = async (): Promise<readonly (readonly string[])[]> =>
    ((await get("/admin/codes")) as { codes: { used_by: string[] }[] }).codes.map(({ used_by: users }) => users);
  return { proxy, admin, register, make, get, usesOf };
}

describe("registration by invitation", () => {
  it("is off by default, and where passwords log nobody in", async () => {
    for (const config of ["", `${open}password_login = "admins"\n`]) {
      const { proxy, register, make } = await start({ config: tiers + config });
      const [code = ""] = await make();
      expect(await register("new", code)).toMatchObject({ status: 403, code: "registration_off" });
      const ways = (await (await fetch(`${proxy.url}/panel/api/oidc`)).json()) as object;
      expect(ways).toMatchObject({ registration: "off" });
    }
  });

  it("is switched on and off by a reload", async () => {
    const { proxy, register, make } = await start({ config: tiers, configFile: true });
    const [code = ""] = await make({ uses: 2 });
    const set = async (config: string): Promise<void> => {
      await writeFile(join(proxy.folder, "config.toml"), proxy.configText(tiers + config));
      await proxy.services.reload("test");
    };
    await set(open);
    expect((await register("one", code)).status).toBe(201);
    await set("");
    expect((await register("two", code)).code).toBe("registration_off");
  });

  it("makes users also while the code's group is full, without it", async () => {
    const { proxy, admin, register, make, get, usesOf } = await start();
    // 10,000 members are the most.
    for (const name of ["a", "b"]) {
      const members = Array.from({ length: 5000 }, (_, index) => `${name}${index}`);
      expect((await post(`${proxy.url}/admin/groups`, { name, members }, bearer(admin))).status).toBe(201);
    }
    const full = { name: "lab", members: ["@a", "@b"] };
    expect((await post(`${proxy.url}/admin/groups`, full, bearer(admin))).status).toBe(201);
    const [code = ""] = await make({ group: "lab", uses: 2 });
    for (const name of ["one", "two"]) expect(await register(name, code), name).toMatchObject({ status: 201 });
    expect(await usesOf()).toEqual([["one", "two"]]);
    expect(((await get("/admin/groups/lab")) as { users: string[] }).users).toHaveLength(10_000);
    expect(proxy.logLines.join("")).toContain("could not be added to the group of the invitation");
  });

  it("makes a user of the code's tier and group, who logs in; it is in the audit log and the events", async () => {
    const { proxy, admin, register, make, get, usesOf } = await start();
    await post(`${proxy.url}/admin/groups`, { name: "lab" }, bearer(admin));
    const [code = ""] = await make({ tier: "guest", group: "lab", note: "for the course" });
    const sent = ` ${code.toLowerCase().replaceAll("-", " ")} `;
    expect(await register("newcomer", sent)).toMatchObject({ status: 201, body: { user: "newcomer", tier: "guest" } });
    await proxy.login("newcomer", password);
    const { codes } = (await get("/admin/codes")) as { codes: Record<string, unknown>[] };
    expect(codes).toMatchObject([
      { kind: "invitation", metric: null, amount: null, note: "for the course", state: "used_up", tier: "guest" },
    ]);
    expect(await usesOf()).toEqual([["newcomer"]]);
    const id = String(codes[0]?.id);
    expect(await get("/admin/users/newcomer")).toMatchObject({
      quota_tier: "guest",
      roles: ["user"],
      invitation: expect.stringContaining(`${id}.`),
    });
    expect(await get("/admin/groups/lab")).toMatchObject({ members: ["newcomer"] });
    expect(await get("/admin/audit?limit=10")).toMatchObject({
      events: expect.arrayContaining([
        expect.objectContaining({ action: "user.created", user: "newcomer", by: `invitation:${id}` }),
        expect.objectContaining({ action: "group.changed", subject: "lab", by: `invitation:${id}` }),
        expect.objectContaining({ action: "codes.created", by: "root" }),
      ]) as unknown,
    });
    const seen = proxy.logLines.filter((line) => line.includes('"user.registered"')).join("");
    expect(seen).toContain(id);
    const secret = code.slice(9).replaceAll("-", "").toLowerCase();
    expect(proxy.logLines.join("").toLowerCase()).not.toContain(secret);
  });

  it("makes exactly as many users as a code has uses, of 100 at once", async () => {
    const { proxy, register, make, usesOf } = await start({
      config: `${tiers}${open}[auth]\nmax_waiting_logins = 1000\n`,
    });
    for (const uses of [1, 7]) {
      const [code = ""] = await make({ uses });
      const names = Array.from({ length: 100 }, (_, index) => `many${uses}-${index}`);
      const answers = await Promise.all(names.map((name) => register(name, code)));
      expect(answers.filter(({ status }) => status === 201)).toHaveLength(uses);
      expect(answers.filter(({ reason }) => reason === "used_up")).toHaveLength(100 - uses);
      const made = await Promise.all(names.map(async (name) => (await proxy.services.users.get(name)) !== undefined));
      expect(made.filter(Boolean)).toHaveLength(uses);
      expect((await usesOf()).flat().filter((user) => user.startsWith(`many${uses}-`))).toHaveLength(uses);
    }
  });

  it("gives a name that several want to one of them, and the others keep their codes", async () => {
    const { register, make, usesOf } = await start();
    const codes = await make({ count: 5 });
    const answers = await Promise.all(codes.map((code) => register("wanted", code)));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409, 409, 409]);
    expect((await usesOf()).flat()).toEqual(["wanted"]);
    const rest = codes.filter((_, index) => answers[index]?.status === 409);
    const again = await Promise.all(rest.map((code, index) => register(`other-${index}`, code)));
    expect(again.map(({ status }) => status)).toEqual([201, 201, 201, 201]);
    // And of one code with several uses.
    const [shared = ""] = await make({ uses: 3 });
    const same = await Promise.all([1, 2, 3].map(() => register("wanted-too", shared)));
    expect(same.map(({ status }) => status).sort()).toEqual([201, 409, 409]);
    expect((await usesOf()).flat().filter((user) => user === "wanted-too")).toHaveLength(1);
  });

  it("refuses names and passwords as for users whom administrators make, and names that stand for something", async () => {
    const { proxy, admin, register, make, usesOf } = await start();
    const [code = ""] = await make();
    const params = async (name: string, fields: object = {}) => {
      const { status, body } = await register(name, code, fields);
      return [status, (body.error as { param?: string } | undefined)?.param];
    };
    expect(await params("Not a name")).toEqual([400, "username"]);
    expect(await params("fine", { password: "short" })).toEqual([400, "password"]);
    expect(await params("fine", { password: "password1" })).toEqual([400, "password"]);
    // One whose usage is still there, a group's owner to be, and a service account's name.
    await post(`${proxy.url}/admin/users`, { username: "former", password }, bearer(admin));
    const chat = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };
    const asFormer = bearer(await proxy.login("former", password));
    expect((await post(`${proxy.url}/chat/completions`, chat, asFormer)).status).toBe(200);
    await fetch(`${proxy.url}/admin/users/former`, { method: "DELETE", headers: bearer(admin) });
    for (const name of ["root", "former", "reserved", "svc-lab"]) expect(await params(name)).toEqual([409, "username"]);
    expect(await usesOf()).toEqual([[]]);
    expect((await post(`${proxy.url}/admin/users`, { username: "reserved" }, bearer(admin))).status).toBe(201);
  });

  it("takes no code for quota, expired, disabled or outdated one, and an invitation gives no quota", async () => {
    const { proxy, admin, register, make } = await start();
    const [forQuota = ""] = await make({ kind: "quota", metric: "tokens", per: "total", amount: 5 });
    expect(await register("new", forQuota)).toMatchObject({ status: 400, code: "code_invalid", reason: "redemption" });
    const [invitation = ""] = await make();
    const redeemed = await post(`${proxy.url}/codes/redeem`, { code: invitation }, bearer(admin));
    expect(await redeemed.json()).toMatchObject({ error: { code: "code_invalid", details: { reason: "invitation" } } });
    const batch = invitation.slice(0, 8).toLowerCase();
    expect((await post(`${proxy.url}/admin/codes/${batch}/disable`, {}, bearer(admin))).status).toBe(204);
    expect((await register("new", invitation)).reason).toBe("disabled");
    await post(`${proxy.url}/admin/groups`, { name: "gone" }, bearer(admin));
    const [outdated = ""] = await make({ group: "gone" });
    await fetch(`${proxy.url}/admin/groups/gone`, { method: "DELETE", headers: bearer(admin) });
    expect((await register("new", outdated)).reason).toBe("outdated");
    expect(await proxy.services.users.get("new")).toBeUndefined();
    const bad = [{ amount: 5 }, { metric: "tokens" }, { credit_days: 1 }, { group: "fixed" }, { tier: "none" }];
    for (const fields of bad) {
      const wanted = { kind: "invitation", name: "x", ...fields };
      expect((await post(`${proxy.url}/admin/codes`, wanted, bearer(admin))).status, JSON.stringify(fields)).toBe(400);
    }
  });

  it("can't be guessed: an address waits after invented codes, and all of them wait in a short line", async () => {
    const time = { now: systemClock.now(), monotonic: systemClock.monotonic() };
    const clock = { now: () => time.now, monotonic: () => time.monotonic };
    const { register, make } = await start({ clock, server: 'trust_proxy = ["127.0.0.1"]\n', hasher: argon2id });
    const [code = ""] = await make();
    for (let tries = 0; tries < 5; tries++) {
      expect((await register(`g${tries}`, `${code.slice(0, -1)}!`, {}, "192.0.2.7")).code).toBe("code_invalid");
    }
    expect(await register("g9", code, {}, "192.0.2.7")).toMatchObject({ status: 429, code: "login_blocked" });
    expect((await register("g9", code, {}, "192.0.2.8")).status).toBe(201);
    const flood = Array.from({ length: 100 }, (_, index) =>
      register(`f${index}`, "invented", {}, `198.51.100.${index}`),
    );
    const codes = (await Promise.all(flood)).map(({ code: refusal }) => refusal);
    expect(new Set(codes)).toEqual(new Set(["code_invalid", "login_busy"]));
  });
});

describe("a registration that a crash has cut off", () => {
  it("is decided at the next start by whether the user exists", async () => {
    skipOverRedis("edits the files of users and codes");
    const { proxy, register, make } = await start();
    const [code = ""] = await make({ tier: "guest" });
    expect((await register("newcomer", code)).status).toBe(201);
    await proxy.stop();
    const folder = join(proxy.folder, "users", "codes");
    const [file = ""] = await readdir(folder);
    const cutOff = async (): Promise<void> => {
      const text = await readFile(join(folder, file), "utf8");
      await writeFile(join(folder, file), text.replace('"done":true', '"done":false'));
    };
    // The user had been made, and the note was missing.
    await cutOff();
    const second = await start({ folder: proxy.folder });
    await second.proxy.services.admin.registrations.recover();
    expect(await second.usesOf()).toEqual([["newcomer"]]);
    expect((await second.register("another", code)).reason).toBe("used_up");
    await second.proxy.stop();
    expect(await readFile(join(folder, file), "utf8")).toContain('"done":true');
    // The user had not: the code is as good as new.
    await cutOff();
    await rm(join(proxy.folder, "users", "newcomer.toml"));
    const third = await start({ folder: proxy.folder });
    await third.proxy.services.admin.registrations.recover();
    expect(await third.usesOf()).toEqual([[]]);
    expect((await third.register("another", code)).status).toBe(201);
  });
});
