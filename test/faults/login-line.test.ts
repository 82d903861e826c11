import { describe, expect, it, onTestFinished } from "vitest";
import { createPasswords } from "../../src/identity/passwords/password.ts";
import { createFakeHasher, fakeHash } from "../identity/support.ts";
import { jsonOf } from "../support/accounts.ts";
import { useGuard } from "../support/login-guard.ts";
import { alicePassword, post, startProxy } from "../support/start-proxy.ts";

const right = fakeHash("correct horse");

describe("I5: the lines for passwords", () => {
  function useLines(maxWaiting = 50) {
    const fake = createFakeHasher();
    const passwords = createPasswords({ maxHashes: 2, maxWaiting, hasher: fake.hasher });
    const open = fake.hold();
    const served: string[] = [];
    /** Asks, and notes when it was served. */
    const verify = (name: string, from?: "known_address" | "account"): Promise<unknown> =>
      passwords.matches(from === undefined ? undefined : right, "correct horse", from).then(
        () => served.push(name),
        (error: unknown) => (error as { code: string }).code,
      );
    return { verify, open, served };
  }

  it("have room for known accounts however many invented names queue, and serve them in turn", async () => {
    const { verify, open, served } = useLines();
    const invented = Array.from({ length: 80 }, () => verify("invented"));
    const others = [
      ...Array.from({ length: 3 }, () => verify("account", "account")),
      ...Array.from({ length: 3 }, () => verify("known_address", "known_address")),
    ];
    open();
    const outcomes = await Promise.all(invented);
    await Promise.all(others);
    // Two run and ten wait.
    expect(outcomes.filter((outcome) => outcome === "login_busy")).toHaveLength(68);
    expect(served).toHaveLength(12 + 6);
    // The two that ran, and then each line in its turn.
    const lastOfOthers = Math.max(served.lastIndexOf("account"), served.lastIndexOf("known_address"));
    expect(served.slice(0, lastOfOthers + 1).filter((name) => name === "invented").length).toBeLessThanOrEqual(2 + 3);
  });

  it("have room for known addresses however many guess at accounts from others", async () => {
    const { verify, open } = useLines(4);
    const guesses = Array.from({ length: 20 }, () => verify("account", "account"));
    const own = Array.from({ length: 4 }, () => verify("known_address", "known_address"));
    open();
    expect(await Promise.all(own)).not.toContain("login_busy");
    expect((await Promise.all(guesses)).filter((outcome) => outcome === "login_busy")).toHaveLength(14);
  });

  it("serve a login from a known address after two others, whatever else floods them", async () => {
    const { verify, open, served } = useLines();
    const flood = [
      ...Array.from({ length: 500 }, () => verify("invented")),
      ...Array.from({ length: 200 }, () => verify("account", "account")),
    ];
    const own = verify("known_address", "known_address");
    open();
    expect(await own).not.toBe("login_busy");
    await Promise.all(flood);
    // Two ran already; then each line has one turn.
    expect(served.indexOf("known_address")).toBeLessThanOrEqual(2 + 2);
  });

  it("of unknown names are never empty of places", async () => {
    const { verify, open } = useLines(1);
    const all = Array.from({ length: 4 }, () => verify("invented"));
    open();
    expect((await Promise.all(all)).filter((outcome) => outcome === "login_busy")).toHaveLength(1);
  });
});

describe("I5: guesses from one IPv6 network", () => {
  const hex = (value: number): string => value.toString(16);
  const networks: readonly (readonly [what: string, free: number, addressOf: (index: number) => string])[] = [
    ["a /64", 5, (index) => `2001:db8:1:2::${hex(index + 1)}`],
    ["a /56, each from another /64", 10, (index) => `2001:db8:1:${hex(0x200 + index)}::1`],
    ["a /48, each from another /56", 20, (index) => `2001:db8:1:${hex(index << 8)}::1`],
    ["nothing in common", 40, (index) => `2001:db8:${hex(index + 1)}::1`],
  ];

  it.each(networks)("%s, are counted together: %i are free", (_, free, addressOf) => {
    const { attempt } = useGuard();
    const results = Array.from({ length: 40 }, (_unused, index) => attempt(`name${index}`, addressOf(index)));
    expect(results.filter((result) => result === "checked")).toHaveLength(free);
  });

  it("are shown to operators, and hold up nobody who has come from there before", () => {
    const { attempt, guard } = useGuard();
    attempt("alice", "2001:db8:1:ff::1", true);
    for (let index = 0; index < 40; index++) attempt(`name${index}`, `2001:db8:1:${hex(index << 8)}::1`);
    expect(guard.locked()).toMatchObject([{ scope: "address", address: "2001:db8:1::/48", failures: 20 }]);
    expect(guard.check("bob", "2001:db8:1:ff::1")).not.toBeNull();
    expect(guard.check("alice", "2001:db8:1:ff::1")).toBeNull();
    expect(guard.check("bob", "2001:db8:2::1")).toBeNull();
  });
});

describe("I5: a login", () => {
  it("with the right password gets in while eighty invented names queue, each from another network", async () => {
    const proxy = await startProxy({ server: 'trust_proxy = ["127.0.0.1"]\n' });
    onTestFinished(() => proxy.dispose());
    const login = (username: string, password: string, from: string) =>
      jsonOf(post(`${proxy.url}/auth/login`, { username, password }, { "x-forwarded-for": from }));
    const invented = Array.from({ length: 80 }, (_, index) =>
      login(`invented${index}`, "some password", `2001:db8:${index}:${index}::1`),
    );
    const alices = Array.from({ length: 3 }, (_, index) => login("alice", alicePassword, `198.51.100.${index}`));
    expect((await Promise.all(alices)).map(({ status }) => status)).toEqual([200, 200, 200]);
    for (const { body } of await Promise.all(invented)) {
      expect(["invalid_credentials", "login_busy"]).toContain(body.error?.code);
    }
  });

  it("from an address of one's own is let in after a restart, too, whoever guesses from others", async () => {
    const server = 'trust_proxy = ["127.0.0.1"]\n';
    const first = await startProxy({ server });
    const login = (url: string, password: string, from: string) =>
      jsonOf(post(`${url}/auth/login`, { username: "alice", password }, { "x-forwarded-for": from }));
    expect((await login(first.url, alicePassword, "192.0.2.1")).status).toBe(200);
    await first.stop();
    const proxy = await startProxy({ server, folder: first.folder });
    onTestFinished(() => proxy.dispose());
    for (let index = 0; index < 6; index++) await login(proxy.url, "some password", `198.51.100.${index}`);
    expect(await login(proxy.url, alicePassword, "203.0.113.1")).toMatchObject({
      status: 429,
      body: { error: { code: "login_blocked" } },
    });
    expect((await login(proxy.url, alicePassword, "192.0.2.1")).status).toBe(200);
  });
});
