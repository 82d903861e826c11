import type { RiskConfig } from "../config/schema.ts";
import type { ChatFinished, Emit, ProxyEvent } from "../events/catalogue.ts";
import type { Clock } from "../lib/clock.ts";
import { actionOf, Behaviour } from "./behaviour.ts";
import { createKnownUsers, type Known, type RiskRecord, stepOf, toRecord } from "./known-users.ts";
import { type SignalName, signalNames, signals } from "./signals.ts";
import { neutralTrust, type Trust } from "./trust.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** How often a user's score is worked out while requests come, in ms. */
const lookEveryMs = 10_000;

/** The fields of an account that matter here. */
interface TrustAccount {
  readonly username: string;
  readonly created_at?: Date | undefined;
  /** The step to which an operator has pinned the user. */
  readonly trust_step?: string | undefined;
}

/** A signal that adds to a user's score. */
interface RiskReason {
  readonly signal: SignalName;
  /** As the signal measures it. */
  readonly value: number;
  readonly points: number;
  /** In words. */
  readonly text: string;
}

/** What is known of a user's trust. */
export interface RiskView {
  readonly user: string;
  readonly trust: Trust;
  readonly pinned: boolean;
  /** Since when the user has been at the step, in ms since the epoch; null if nothing is known of the user yet. */
  readonly since: number | null;
  /** From 0, nothing suspicious, to 100. */
  readonly score: number;
  /** What adds to the score, most first. */
  readonly reasons: readonly RiskReason[];
  /** Days with completed requests, and completed requests, since then. */
  readonly activeDays: number;
  readonly completed: number;
}

/** Keeps a score and a trust step for each user, by the events of their requests. */
export interface Risk {
  /** The factors of a user's limits now. Constant time, for each request. */
  trustOf(account: TrustAccount): Trust;
  /** Takes note of events. */
  readonly sink: (event: ProxyEvent) => void;
  readonly enabled: () => boolean;
  /** The names of the steps, from the most careful to the most trusting. */
  readonly stepNames: () => readonly string[];
  view(account: TrustAccount): RiskView;
  /** The users whose behaviour is known, by score, the highest first. */
  list(query: { readonly step?: string | undefined; readonly minScore: number; readonly limit: number }): {
    readonly users: readonly RiskView[];
    /** How many match. */
    readonly total: number;
  };
  /** How many known users are at each step. */
  counts(): ReadonlyMap<string, number>;
  /** @param ownRules as in RiskOptions */
  configure(config: RiskConfig, ownRules: ReadonlySet<string>): void;
  /** What has to be stored. */
  records(): Iterable<readonly [user: string, record: RiskRecord]>;
  /** Whether any of it has changed since the last call. */
  takeChanged(): boolean;
}

/** What caused a change: in an event, the request's. */
interface Cause {
  readonly at: number;
  readonly traceId: string;
  readonly ip: string;
}

export interface RiskOptions {
  readonly config: RiskConfig;
  /** The names of the rules of rates that count a user or a key alone. */
  readonly ownRules: ReadonlySet<string>;
  readonly emit: Emit;
  readonly clock: Clock;
  /** What was stored. */
  readonly saved?: ReadonlyMap<string, RiskRecord>;
}

/**
 * Creates the trust steps. A user goes down as soon as the score is high, one step at a time, and up after a time of
 * good use; an operator's pin wins over both.
 */
export function createRisk({ config, emit, clock, saved = new Map(), ...options }: RiskOptions): Risk {
  let rules = config;
  let { ownRules } = options;
  let trusts = trustsOf(config);
  let changed = false;
  const known = createKnownUsers(saved);

  function indexOf(step: string): number {
    const names = [...trusts.keys()];
    const index = names.indexOf(step);
    // The step was removed from the config.
    return index === -1 ? names.indexOf(rules.start) : index;
  }

  function nameAt(index: number): string {
    return rules.steps[index]?.name ?? rules.start;
  }

  function trustAt(step: string): Trust {
    return trusts.get(step) ?? trusts.get(rules.start) ?? neutralTrust;
  }

  /** The step of a user of whom nothing is known: new ones at `start`, older ones, which were there before, above. */
  function firstStep(createdAt: number, now: number): string {
    const isNew = now - createdAt < rules.promote_days * dayMs;
    const start = indexOf(rules.start);
    return nameAt(isNew ? start : Math.min(start + 1, rules.steps.length - 1));
  }

  function pinOf({ trust_step: pin }: TrustAccount): string | null {
    return pin !== undefined && trusts.has(pin) ? pin : null;
  }

  function enter(account: TrustAccount): Known {
    const now = clock.now();
    const createdAt = account.created_at?.getTime() ?? 0;
    const entry: Known = {
      ...{ step: firstStep(createdAt, now), pin: null, since: now, calmSince: now, demotedAt: 0 },
      ...{ createdAt, completed: 0, activeDays: 0, lastActiveDay: -1, lookAt: 0, behaviour: new Behaviour() },
    };
    known.keep(account.username, entry);
    changed = true;
    return entry;
  }

  function entryOf(account: TrustAccount): Known {
    const entry = known.get(account.username);
    if (entry === undefined) return enter(account);
    return entry.createdAt === (account.created_at?.getTime() ?? 0) ? entry : enter(account);
  }

  function notePin(user: string, entry: Known, pin: string | null): void {
    const before = stepOf(entry);
    known.change(entry, { pin });
    changed = true;
    const reason = pin === null ? "no longer pinned by an operator" : "pinned by an operator";
    if (stepOf(entry) !== before) report(user, entry, before, { at: clock.now(), traceId: "", ip: "" }, [reason]);
  }

  function scoreOf({ behaviour }: Known, at: number): { readonly score: number; readonly reasons: RiskReason[] } {
    const values = behaviour.measure(at, rules.min_requests);
    const reasons: RiskReason[] = [];
    let sum = 0;
    for (const signal of signalNames) {
      const value = values.get(signal);
      const { points: most, from, to } = rules.signals[signal];
      if (value === undefined || value <= from) continue;
      const points = most * Math.min(1, (value - from) / (to - from));
      sum += points;
      if (points >= 0.5) reasons.push({ signal, value, points, text: signals[signal].say(value) });
    }
    reasons.sort((a, b) => b.points - a.points);
    return { score: Math.min(100, sum), reasons };
  }

  /** Moves a user where the score or good use calls for it: by one step at most. */
  function look(user: string, entry: Known, cause: Cause): void {
    const { at } = cause;
    entry.lookAt = at + lookEveryMs;
    // A clock that was ahead for a while must not keep anybody where they are.
    entry.since = Math.min(entry.since, at);
    const { score, reasons } = scoreOf(entry, at);
    if (score >= rules.promote_score) entry.calmSince = at;
    entry.calmSince = Math.min(entry.calmSince, at);
    if (entry.pin !== null) return;
    const step = indexOf(entry.step);
    if (score >= rules.demote_score) {
      const sinceDemoted = Math.abs(at - entry.demotedAt);
      if (step === 0 || sinceDemoted < rules.demote_pause_hours * hourMs) return;
      entry.demotedAt = at;
      move(user, entry, nameAt(step - 1), cause, ...reasons.map(({ text }) => text));
      return;
    }
    if (step + 1 >= rules.steps.length) return;
    const calmMs = at - Math.max(entry.since, entry.calmSince);
    if (step < indexOf(rules.start)) {
      if (calmMs < rules.recover_hours * hourMs) return;
      move(
        user,
        entry,
        nameAt(step + 1),
        cause,
        `a score below ${rules.promote_score} for ${rules.recover_hours} hours`,
      );
      return;
    }
    const { promote_days: days, promote_active_days: active, promote_requests: most } = rules;
    if (calmMs < days * dayMs || entry.activeDays < active || entry.completed < most) return;
    const reason = `${entry.completed} completed requests on ${entry.activeDays} days, with a score below ${rules.promote_score}`;
    move(user, entry, nameAt(step + 1), cause, reason);
  }

  function move(user: string, entry: Known, to: string, cause: Cause, ...reasons: string[]): void {
    const from = entry.step;
    known.change(entry, { step: to });
    entry.since = cause.at;
    entry.completed = 0;
    entry.activeDays = 0;
    entry.lastActiveDay = -1;
    changed = true;
    report(user, entry, from, cause, reasons);
  }

  function report(user: string, entry: Known, from: string, cause: Cause, reasons: readonly string[]): void {
    const { at, traceId, ip } = cause;
    const to = stepOf(entry);
    const direction = indexOf(to) > indexOf(from) ? "up" : "down";
    const score = Math.round(scoreOf(entry, at).score);
    emit({ type: "trust.changed", at, traceId, ip, user, from, to, direction, score, reasons });
  }

  function noteRequest(event: ChatFinished): void {
    const entry = known.get(event.user);
    if (entry === undefined) return;
    const action = actionOf(event, ownRules);
    const { at, result } = action;
    entry.behaviour.note(action);
    changed = true;
    if (result === "completed") {
      entry.completed++;
      const day = Math.floor(at / dayMs);
      if (day !== entry.lastActiveDay) entry.activeDays++;
      entry.lastActiveDay = day;
    }
    // A clock that is set back must not put it off.
    if (at >= entry.lookAt || at < entry.lookAt - lookEveryMs) look(event.user, entry, event);
  }

  function viewOf(user: string, entry: Known): RiskView {
    const { score, reasons } = scoreOf(entry, Math.max(clock.now(), entry.behaviour.lastAt));
    const { since, activeDays, completed } = entry;
    const trust = trustAt(stepOf(entry));
    return { user, trust, pinned: entry.pin !== null, since, score, reasons, activeDays, completed };
  }

  return {
    trustOf(account) {
      if (!rules.enabled) return neutralTrust;
      const entry = entryOf(account);
      const pin = pinOf(account);
      if (pin !== entry.pin) notePin(account.username, entry, pin);
      return trustAt(stepOf(entry));
    },
    sink(event) {
      if (!rules.enabled) return;
      if (event.type === "chat.finished") noteRequest(event);
      else if (event.type === "session.reuse_detected") {
        const entry = known.get(event.user);
        if (entry === undefined) return;
        entry.behaviour.noteStolenSession(event.at);
        look(event.user, entry, event);
      }
    },
    enabled: () => rules.enabled,
    stepNames: () => [...trusts.keys()],
    view(account) {
      const entry = known.get(account.username);
      if (rules.enabled && entry !== undefined) return viewOf(account.username, entry);
      const createdAt = account.created_at?.getTime() ?? 0;
      const pin = pinOf(account);
      const trust = rules.enabled ? trustAt(pin ?? firstStep(createdAt, clock.now())) : neutralTrust;
      return {
        ...{ user: account.username, trust, pinned: pin !== null, since: null, score: 0 },
        ...{ reasons: [], activeDays: 0, completed: 0 },
      };
    },
    list({ step, minScore, limit }) {
      if (!rules.enabled) return { users: [], total: 0 };
      const users = Array.from(known.entries(), ([user, entry]) => viewOf(user, entry))
        .filter((view) => view.score >= minScore && (step === undefined || view.trust.step === step))
        .sort((a, b) => b.score - a.score || (a.user < b.user ? -1 : 1));
      return { users: users.slice(0, limit), total: users.length };
    },
    counts() {
      const counts = new Map([...trusts.keys()].map((name) => [name, 0]));
      if (!rules.enabled) return counts;
      for (const [name, users] of known.atStep()) {
        // Those of a step that the config no longer has are at the first one.
        const { step } = trustAt(name);
        counts.set(step, (counts.get(step) ?? 0) + users);
      }
      return counts;
    },
    configure(next, nextOwnRules) {
      rules = next;
      ownRules = nextOwnRules;
      trusts = trustsOf(next);
    },
    *records() {
      for (const [name, entry] of known.entries()) yield [name, toRecord(entry)] as const;
    },
    takeChanged() {
      const was = changed;
      changed = false;
      return was;
    },
  };
}

function trustsOf({ steps }: RiskConfig): ReadonlyMap<string, Trust> {
  return new Map(steps.map(({ name, ...factors }) => [name, { step: name, ...factors }]));
}
