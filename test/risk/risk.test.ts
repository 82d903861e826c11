import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { configSchema, type RiskConfig } from "../../src/config/schema.ts";
import type { ChatFinished, ProxyEvent } from "../../src/events/catalogue.ts";
import { Behaviour, behaviourSchema } from "../../src/risk/behaviour.ts";
import { openRisk } from "../../src/risk/open-risk.ts";
import { createRisk } from "../../src/risk/risk.ts";
import { neutralTrust } from "../../src/risk/trust.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { chatFinished } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const start = Date.UTC(2026, 0, 5);
const alice = { username: "alice", created_at: new Date(start) };
const ownRules = new Set(["per_user"]);
const gone = { outcome: "client_gone", code: "client_gone", firstEventMs: null } as const;

function rulesOf(risk: object = {}): RiskConfig {
  return configSchema.parse({ risk: { enabled: true, ...risk } }).risk;
}

function setUp(risk: object = {}) {
  const clock = createManualClock(start);
  const events: ProxyEvent[] = [];
  const options = { config: rulesOf(risk), ownRules, clock, emit: (event: ProxyEvent) => events.push(event) };
  const service = createRisk(options);
  const chat = (
    changes: Partial<ChatFinished> = {},
    account: { username: string; created_at?: Date } = alice,
  ): void => {
    service.trustOf(account);
    service.sink(chatFinished({ at: clock.now(), user: account.username, ...changes }));
    clock.advance(20_000);
  };
  const chats = (count: number, changes: Partial<ChatFinished> = {}): void => {
    for (let i = 0; i < count; i++) chat(changes);
  };
  /** Good use for so many days. */
  const live = (days: number): void => {
    for (let day = 0; day < days; day++) {
      chats(20);
      clock.advance(dayMs - 20 * 20_000);
    }
  };
  return { clock, events, risk: service, options, chat, chats, live, step: () => service.trustOf(alice).step };
}

describe("trust steps", () => {
  it("are shown as they are in force, also before the next request of who is pinned by a file or a reload", () => {
    const { risk, chats } = setUp();
    chats(1);
    expect(risk.view(alice)).toMatchObject({ pinned: false, trust: { step: "probation" } });
    const pinned = { ...alice, trust_step: "trusted" };
    expect(risk.view(pinned)).toMatchObject({ pinned: true, trust: { step: "trusted" } });
    risk.trustOf(pinned);
    risk.configure(rulesOf({ start: "a", steps: [{ name: "a" }, { name: "b" }] }), ownRules);
    expect(risk.view(pinned)).toMatchObject({ pinned: false, trust: { step: "a" } });
  });

  it("count no tokens of answers that a provider broke off", () => {
    const { risk, chats, live } = setUp();
    live(6);
    const broken = { outcome: "upstream_failed", code: "upstream_error", requests: 0, cost: 0 } as const;
    chats(20, { ...broken, outputTokens: 1_000_000 });
    expect(risk.view(alice).score).toBe(0);
    chats(20, { outputTokens: 1_000_000 });
    expect(risk.view(alice).score).toBeGreaterThan(0);
  });

  it("are neutral while they are off", () => {
    const { risk, chats } = setUp({ enabled: false });
    chats(50, gone);
    expect(risk.trustOf(alice)).toBe(neutralTrust);
    expect(risk.list({ minScore: 0, limit: 10 })).toEqual({ users: [], total: 0 });
    expect(risk.view(alice)).toMatchObject({ score: 0, trust: { step: "", rate: 1 } });
  });

  it("begin at `start` for a new account, and above it for one that was there before", () => {
    const { risk } = setUp();
    expect(risk.trustOf(alice)).toEqual({ step: "probation", rate: 0.5, parallel: 0.5, quota: 0.5 });
    expect(risk.trustOf({ username: "old", created_at: new Date(start - 30 * dayMs) }).step).toBe("normal");
    expect(risk.trustOf({ username: "older" }).step).toBe("normal");
  });

  it("are counted as they change, by moves, pins, other accounts of the same name and another config", () => {
    const { risk, chat, live, options } = setUp();
    const counted = (service = risk) =>
      service.stepNames().map((step) => [step, service.list({ step, minScore: 0, limit: 1 }).total]);
    const account = (index: number, more: object = {}) => ({ username: `user-${index}`, ...more });
    for (let index = 0; index < 40; index++) {
      const createdAt = index % 3 === 0 ? {} : { created_at: new Date(start) };
      chat({}, account(index, createdAt));
      if (index % 4 === 0) risk.trustOf(account(index, { ...createdAt, trust_step: "trusted" }));
      if (index % 8 === 0) risk.trustOf(account(index, createdAt));
      if (index % 5 === 0) risk.trustOf(account(index, { created_at: new Date(start + 1) }));
    }
    live(4);
    expect([...risk.counts()]).toEqual(counted());
    expect([...risk.counts().values()].reduce((sum, count) => sum + count)).toBe(41);
    const restarted = createRisk({ ...options, saved: new Map(risk.records()) });
    expect(restarted.counts()).toEqual(risk.counts());
    const { steps } = rulesOf();
    const fewer = rulesOf({ steps: steps.slice(0, 2), start: steps[0]?.name });
    restarted.configure(fewer, ownRules);
    expect([...restarted.counts()]).toEqual(counted(restarted));
  });

  it("rise by steady good use, up to the last", () => {
    const { events, live, step } = setUp();
    live(4);
    expect(step()).toBe("normal");
    live(20);
    expect(step()).toBe("trusted");
    expect(events).toMatchObject([
      { type: "trust.changed", user: "alice", from: "probation", to: "normal", direction: "up" },
      { from: "normal", to: "trusted", direction: "up" },
    ]);
    expect(JSON.stringify(events[0])).toContain("completed requests on");
  });

  it("do not rise for many requests in one day", () => {
    const { chats, step } = setUp();
    chats(2000);
    expect(step()).toBe("probation");
  });

  it("fall once, with reasons, and not again at once", () => {
    const { chats, events, step } = setUp({ start: "normal" });
    chats(40, gone);
    expect(step()).toBe("probation");
    expect(events).toMatchObject([
      {
        from: "normal",
        to: "probation",
        direction: "down",
        traceId: "trace-1",
        ip: "192.0.2.1",
        reasons: ["in 100% of the requests the client left before the first event"],
      },
    ]);
  });

  it("say nothing about a user with few requests", () => {
    const { chats, risk, step } = setUp();
    chats(9, gone);
    expect(step()).toBe("probation");
    expect(risk.view(alice).score).toBe(0);
  });

  it("come back below `start` after a quiet time", () => {
    const { chats, live, clock, step } = setUp();
    chats(20, gone);
    expect(step()).toBe("restricted");
    clock.advance(5 * dayMs);
    live(3);
    expect(step()).toBe("probation");
  });

  it("count neither a provider's failures nor ours against a user", () => {
    const { chats, risk } = setUp();
    chats(50, { outcome: "upstream_failed", code: "upstream_error", status: 502 });
    chats(50, { outcome: "refused", code: "proxy_overloaded", status: 503 });
    chats(50, { outcome: "upstream_failed", code: "upstream_rate_limited", status: 429 });
    expect(risk.view(alice)).toMatchObject({ score: 0, reasons: [] });
  });

  it.each([
    ["user quota", 55],
    ["per_user", 55],
    ["concurrency", 55],
    // Others may have used them up.
    ["group quota", 0],
    ["global", 0],
    ["concurrency_process", 0],
    ["group_team_requests_minute", 0],
  ])("count a refusal by %s with %i points", (refusedBy, score) => {
    const { chats, risk } = setUp();
    chats(50, { outcome: "refused", code: "rate_limited", status: 429, refusedBy, firstEventMs: null });
    expect(risk.view(alice).score).toBe(score);
  });

  it("count nothing that others can do in a user's name", () => {
    const { risk, chat, clock } = setUp();
    chat();
    for (let i = 0; i < 1000; i++)
      risk.sink({
        type: "login.failed",
        at: clock.now(),
        traceId: "t",
        ip: "192.0.2.9",
        user: "alice",
        known: true,
        result: "failure",
        reason: "wrong password",
      });
    expect(risk.view(alice).score).toBe(0);
  });

  it("count a refresh token that was used twice", () => {
    const { risk, chat, clock } = setUp();
    chat();
    risk.sink({
      type: "session.reuse_detected",
      at: clock.now(),
      traceId: "t",
      ip: "192.0.2.9",
      user: "alice",
      subject: "s1",
    });
    expect(risk.view(alice)).toMatchObject({ score: 30, reasons: [{ signal: "stolen_sessions", points: 30 }] });
  });

  it("stay where an operator has pinned a user, and give back the step that was earned", () => {
    const { risk, chats, events } = setUp();
    const pinned = { ...alice, trust_step: "trusted" };
    expect(risk.trustOf(pinned).step).toBe("trusted");
    expect(events).toMatchObject([{ type: "trust.changed", to: "trusted", reasons: ["pinned by an operator"] }]);
    for (let i = 0; i < 40; i++) {
      risk.trustOf(pinned);
      risk.sink(chatFinished({ at: start + i * 20_000, user: "alice", ...gone }));
    }
    expect(risk.view(pinned)).toMatchObject({ trust: { step: "trusted" }, pinned: true, score: 60 });
    expect(risk.trustOf(alice).step).toBe("probation");
    expect(events.at(-1)).toMatchObject({ from: "trusted", to: "probation", direction: "down" });
    chats(1, gone);
    expect(risk.trustOf(alice).step).toBe("restricted");
  });

  it("ignore a pin to a step that there isn't", () => {
    const { risk } = setUp();
    expect(risk.trustOf({ ...alice, trust_step: "gone" }).step).toBe("probation");
    expect(risk.view({ ...alice, trust_step: "gone" }).pinned).toBe(false);
  });

  it("begin anew for another account of the same name", () => {
    const { risk, chats, clock } = setUp();
    chats(20, gone);
    expect(risk.trustOf(alice).step).toBe("restricted");
    expect(risk.trustOf({ username: "alice", created_at: new Date(clock.now()) }).step).toBe("probation");
  });

  it("take new rules at once, and survive the removal of a step", () => {
    const { risk, chats } = setUp();
    chats(20, gone);
    const steps = [{ name: "new", rate: 0.1 }, { name: "known" }];
    risk.configure(rulesOf({ steps, start: "new" }), ownRules);
    expect(risk.trustOf(alice)).toMatchObject({ step: "new", rate: 0.1 });
    risk.configure(rulesOf({ enabled: false }), ownRules);
    expect(risk.trustOf(alice)).toBe(neutralTrust);
  });

  it("lock nobody where they are when the clock was ahead for a while", () => {
    const { clock, chats, live, step } = setUp();
    chats(1);
    clock.advance(400 * dayMs);
    chats(20, gone);
    expect(step()).toBe("restricted");
    clock.advance(-400 * dayMs);
    live(5);
    expect(step()).not.toBe("restricted");
  });

  it("remember a bounded number of users", () => {
    const { risk, clock } = setUp();
    for (let i = 0; i < 25_000; i++) {
      risk.trustOf({ username: `user-${i}`, created_at: new Date(start) });
      risk.sink(chatFinished({ at: clock.now(), user: `user-${i}` }));
      clock.advance(1);
    }
    const { users, total } = risk.list({ minScore: 0, limit: 20_000 });
    expect(total).toBeLessThanOrEqual(10_000);
    expect(users.map(({ user }) => user)).toContain("user-24999");
  });
});

describe("stored trust steps", () => {
  let usersDir: string;
  beforeEach(async () => {
    usersDir = await mkdtemp(join(tmpdir(), "risk-"));
  });
  afterEach(() => rm(usersDir, { recursive: true, force: true }));

  async function open() {
    const log = createCapturedLog();
    const { options } = setUp();
    const messages = (): string => log.lines.map(({ message }) => message).join();
    return { risk: await openRisk({ ...options, usersDir, log }), messages };
  }

  it("survive a restart", async () => {
    const { risk } = await open();
    risk.trustOf(alice);
    for (let i = 0; i < 20; i++) risk.sink(chatFinished({ at: start + i * 20_000, user: "alice", ...gone }));
    const before = risk.view(alice);
    await risk.close();
    const { risk: again } = await open();
    expect(again.view(alice)).toMatchObject({ trust: { step: "restricted" }, since: before.since });
    await again.close();
  });

  it("are stored so that they can be read, however many tokens there were", () => {
    const behaviour = new Behaviour();
    const action = { at: Date.UTC(2026, 10, 22), ip: "192.0.2.1", client: "c", result: "other" } as const;
    for (const tokens of [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER]) behaviour.note({ ...action, tokens });
    expect(behaviourSchema.parse(behaviour.record)).toMatchObject({
      requests: 2,
      tokens_today: Number.MAX_SAFE_INTEGER,
    });
  });

  it("cost one user where one record is invalid, and none the start", async () => {
    const first = await open();
    first.risk.trustOf(alice);
    first.risk.trustOf({ username: "bob" });
    await first.risk.close();
    const path = join(usersDir, "trust.json");
    const stored = JSON.parse(await readFile(path, "utf8")) as { users: Record<string, unknown> };
    await writeFile(path, JSON.stringify({ ...stored, users: { ...stored.users, alice: { step: 7 } } }));
    const second = await open();
    expect(second.risk.list({ minScore: 0, limit: 10 }).users.map(({ user }) => user)).toEqual(["bob"]);
    expect(second.messages()).toContain("begins anew");
    await second.risk.close();
    await writeFile(path, "{ torn");
    const third = await open();
    expect(third.risk.trustOf(alice).step).toBe("probation");
    expect(third.messages()).toContain("could not be read");
    await third.risk.close();
  });
});

describe("[risk]", () => {
  it.each([
    [{ steps: [{ name: "a" }, { name: "a" }], start: "a" }, "steps.1.name", "another name than steps.0"],
    [{ start: "nowhere" }, "start", "restricted, probation, normal, trusted"],
    [{ promote_score: 60 }, "promote_score", "below demote_score"],
    [{ steps: [{ name: "a" }], start: "a" }, "steps", ""],
    [{ steps: [{ name: "a", rate: 0 }, { name: "b" }], start: "a" }, "steps.0.rate", ""],
    [{ signals: { bursts: { from: 5, to: 5 } } }, "signals.bursts.to", "above `from`"],
    [{ signals: { nothing: {} } }, "signals", "nothing"],
    [{ promote_days: -1 }, "promote_days", ""],
  ])("refuses %j", (risk, path, message) => {
    const issues = configSchema.safeParse({ risk }).error?.issues ?? [];
    expect(issues.map((issue) => issue.path.join("."))).toContain(`risk.${path}`);
    expect(issues.map((issue) => issue.message).join()).toContain(message);
  });
});
