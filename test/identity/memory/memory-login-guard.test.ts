import { describe, expect, it } from "vitest";
import { address, home, minute, rule, useGuard } from "../../support/login-guard.ts";

describe("the login guard", () => {
  it("lets five failures pass, then asks for waits that double up to the longest", () => {
    const { guard, clock, attempt, fail } = useGuard();
    expect(fail(6, "alice", home)).toEqual([...Array<string>(5).fill("checked"), "refused"]);
    const waits: number[] = [];
    for (let round = 0; round < 13; round += 1) {
      const waitMs = guard.check("alice", home())?.retryAfterMs ?? 0;
      waits.push(waitMs / 1000);
      clock.advance(waitMs - 1);
      expect(attempt("alice", home())).toBe("refused");
      clock.advance(1);
      expect(attempt("alice", home())).toBe("checked");
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
  });

  it("slows down an account that a hundred addresses guess at, and ends that by itself", () => {
    const { clock, fail, attempt } = useGuard();
    expect(fail(100, "alice", address).filter((result) => result === "checked")).toHaveLength(5);
    clock.advance(1000);
    expect(attempt("alice", "203.0.113.9")).toBe("checked");
    clock.advance(rule.quietMs + 2000);
    expect(fail(6, "alice", address).filter((result) => result === "checked")).toHaveLength(5);
  });

  it("slows down an address that tries many accounts, but not other addresses", () => {
    const { attempt, guard } = useGuard();
    const results = Array.from({ length: 8 }, (_, index) => attempt(`name${index}`, "203.0.113.5"));
    expect(results.filter((result) => result === "checked")).toHaveLength(5);
    expect(guard.check("alice", "203.0.113.5")).not.toBeNull();
    expect(guard.check("alice", "203.0.113.6")).toBeNull();
  });

  it("counts nothing against an address that many share, and as ever against the accounts", () => {
    const { attempt, fail } = useGuard();
    for (let index = 0; index < 20; index += 1) expect(attempt(`name${index}`, "127.0.0.1")).toBe("checked");
    expect(fail(6, "alice", () => "127.0.0.1").at(-1)).toBe("refused");
  });

  it("takes an IPv6 network of 64 bits for one address", () => {
    const { attempt, guard } = useGuard();
    for (let index = 0; index < 5; index += 1) attempt(`name${index}`, `2001:db8:1:2::${index + 1}`);
    expect(guard.check("alice", "2001:db8:1:2:ffff::1")).not.toBeNull();
    expect(guard.check("alice", "2001:db8:1:3::1")).toBeNull();
  });

  it("tells nobody by its answers whether an account exists", () => {
    const { fail } = useGuard();
    expect(fail(8, "nobody", address)).toEqual(fail(8, "alice", (index) => address(index + 300)));
  });

  it("lets no more guesses run at the same time than may still fail", () => {
    const { begin, clock } = useGuard();
    const begun = Array.from({ length: 50 }, (_, index) => begin("alice", address(index)));
    const running = begun.filter((one) => typeof one !== "number");
    expect(running).toHaveLength(5);
    for (const one of running) one.failed();
    clock.advance(1000);
    // From now on they are made one at a time.
    expect(typeof begin("alice", address(60))).toBe("object");
    expect(begin("alice", address(61))).toBeGreaterThan(0);
  });

  it("lets a whole office log in at once from its one address", () => {
    const { begin } = useGuard();
    const tries = Array.from({ length: 40 }, (_, index) => begin(`name${index}`, home()));
    expect(tries.every((one) => typeof one !== "number")).toBe(true);
  });

  it("counts nothing for an attempt whose password was not checked", () => {
    const { begin, guard } = useGuard();
    for (let index = 0; index < 20; index += 1) {
      const one = begin("alice", home());
      expect(typeof one).toBe("object");
      if (typeof one !== "number") one.dropped();
    }
    expect(guard.tracked()).toBe(0);
  });

  it("forgets an account's failures with its success, and the address's only with time", () => {
    const { attempt, guard, clock } = useGuard();
    for (let index = 0; index < 4; index += 1) attempt("alice", home());
    attempt("alice", home(), true);
    for (let index = 0; index < 4; index += 1) expect(attempt("alice", "198.51.100.1")).toBe("checked");
    attempt("bob", home());
    expect(guard.check("bob", home())).not.toBeNull();
    clock.advance(rule.quietMs + 1000);
    expect(guard.check("bob", home())).toBeNull();
  });

  it("does not let someone with an account of his own clear his address to guess at others", () => {
    const { attempt } = useGuard();
    const guesses = Array.from({ length: 20 }, (_, index) => {
      attempt("bob", home(), true);
      return attempt(`name${index}`, home());
    });
    expect(guesses.filter((result) => result === "checked")).toHaveLength(5);
  });

  it("lets the owner in from an address of his own while others guess, with failures counted apart", () => {
    const { attempt, fail, guard } = useGuard();
    attempt("alice", home(), true);
    fail(30, "alice", address);
    expect(guard.check("alice", "203.0.113.77")).not.toBeNull();
    expect(guard.check("alice", home())).toBeNull();
    // The allowance is as small there as anywhere.
    expect(fail(8, "alice", home).filter((result) => result === "checked")).toHaveLength(5);
  });

  it("lets the owner in from an address that others have got locked", () => {
    const { attempt, guard } = useGuard();
    attempt("alice", home(), true);
    for (let index = 0; index < 10; index += 1) attempt(`name${index}`, home());
    expect(guard.check("bob", home())).not.toBeNull();
    expect(attempt("alice", home(), true)).toBe("checked");
  });

  it("gives those who guess no new guesses when the owner logs in", () => {
    const { attempt, fail, guard } = useGuard();
    attempt("alice", home(), true);
    fail(5, "alice", address);
    attempt("alice", home(), true);
    expect(guard.check("alice", "203.0.113.77")).not.toBeNull();
  });

  it("stops to know an address some time after the last login from it", () => {
    const { attempt, fail, guard, clock } = useGuard();
    attempt("alice", home(), true);
    clock.advance(24 * 60 * minute);
    fail(5, "alice", address);
    expect(guard.check("alice", home())).not.toBeNull();
  });

  it("lets an operator unlock an account, and says so", () => {
    const { attempt, fail, guard, events, clock } = useGuard();
    attempt("alice", home(), true);
    fail(5, "alice", home);
    fail(5, "alice", address);
    const by = { admin: "root", ip: "127.0.0.1", traceId: "u" };
    expect(guard.unlock({ user: "alice", known: true, ...by })).toBe(true);
    expect([guard.check("alice", home()), guard.check("alice", "203.0.113.77")]).toEqual([null, null]);
    expect(guard.unlock({ user: "alice", known: true, ...by })).toBe(false);
    expect(events.filter(({ type }) => type === "login.unlocked")).toEqual([
      {
        type: "login.unlocked",
        at: clock.now(),
        ip: "127.0.0.1",
        traceId: "u",
        user: "alice",
        known: true,
        by: "root",
      },
    ]);
  });

  it("says once that waits have begun and once that they are the longest", () => {
    const { guard, events, clock, attempt } = useGuard();
    for (let index = 0; index < 20; index += 1) {
      attempt("alice", address(index));
      clock.advance(guard.check("alice", "203.0.113.77")?.retryAfterMs ?? 0);
    }
    expect(events).toMatchObject([
      { type: "login.locked", user: "alice", known: true, scope: "account", failures: 5, escalation: "begun" },
      { type: "login.locked", user: "alice", scope: "account", failures: 15, escalation: "longest", waitMs: 900_000 },
    ]);
    expect(events[0]).toMatchObject({ traceId: "t", ip: address(4), waitMs: 1000 });
  });

  it("lists who has to wait", () => {
    const { guard, fail, attempt, clock } = useGuard();
    attempt("bob", home(), true);
    fail(5, "bob", home);
    fail(5, "alice", address);
    for (let index = 0; index < 6; index += 1) attempt(`name${index}`, "203.0.113.5");
    expect(guard.locked()).toEqual([
      { scope: "account", guesses: "password", user: "alice", address: null, failures: 5, retryAfterMs: 1000 },
      { scope: "known_address", guesses: "password", user: "bob", address: home(), failures: 5, retryAfterMs: 1000 },
      { scope: "address", guesses: null, user: null, address: "203.0.113.5", failures: 5, retryAfterMs: 1000 },
    ]);
    clock.advance(1000);
    expect(guard.locked()).toEqual([]);
  });

  it("keeps a bounded number of addresses and invented names, and forgets no account under attack for them", () => {
    const { guard, fail, attempt } = useGuard({ maxTracked: 2000 });
    fail(5, "alice", address);
    for (let index = 0; index < 100_000; index += 1) {
      const ip = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
      attempt(`name${index}`, ip);
    }
    expect(guard.tracked()).toBeLessThanOrEqual(1 + 2 * 2000);
    expect(guard.check("alice", "203.0.113.77")).not.toBeNull();
  });

  it("forgets no address that waits for any number of those that failed once", () => {
    const { guard, attempt } = useGuard({ maxTracked: 100 });
    for (let index = 0; index < 5; index += 1) attempt(`first${index}`, home());
    for (let index = 0; index < 10_000; index += 1) attempt(`name${index}`, address(index));
    expect(guard.check("alice", home())).not.toBeNull();
  });

  it("holds nothing of what has been quiet for long, once others come", () => {
    const { guard, attempt, clock } = useGuard();
    for (let index = 0; index < 10; index += 1) attempt(`name${index}`, address(index));
    expect(guard.tracked()).toBe(20);
    for (let index = 0; index < 2; index += 1) {
      clock.advance(rule.quietMs + rule.maxWaitMs);
      attempt("nobody", home());
    }
    expect(guard.tracked()).toBe(2);
  });
});
