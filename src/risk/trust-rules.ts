import type { RiskConfig } from "../config/schema.ts";
import type { ChatFinished, ProxyEvent } from "../events/catalogue.ts";
import { actionOf, Behaviour } from "./behaviour.ts";
import { type Known, stepOf } from "./known-users.ts";
import { type SignalName, signalNames, signals } from "./signals.ts";
import { neutralTrust, type Trust } from "./trust.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** How often a user's score is worked out while requests come, in ms. */
const lookEveryMs = 10_000;

/** The fields of an account that matter here. */
export interface TrustAccount {
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

export type TrustChanged = Extract<ProxyEvent, { type: "trust.changed" }>;

/** What caused a change: in an event, the request's. */
type Cause = Pick<TrustChanged, "at" | "traceId" | "ip">;

/**
 * What a user's behaviour leads to, by the config. What changes an entry returns the event of the move that it has led
 * to, if any, for the caller to emit.
 */
export interface TrustRules {
  enabled(): boolean;
  /** From the most careful to the most trusting. */
  stepNames(): readonly string[];
  trustAt(step: string): Trust;
  /** The step to which the user is pinned, if the config has it. */
  pinOf(account: TrustAccount): string | null;
  /** A user of whom nothing is known: a new account begins at `start`, an older one, which was there before, above. */
  begin(account: TrustAccount, now: number): Known;
  notePin(user: string, entry: Known, pin: string | null, now: number): TrustChanged | undefined;
  noteRequest(entry: Known, event: ChatFinished): TrustChanged | undefined;
  noteStolenSession(user: string, entry: Known, cause: Cause): TrustChanged | undefined;
  view(user: string, entry: Known, now: number): RiskView;
  /** The view of a user of whom nothing is known, or while there are no steps. */
  viewOfUnknown(account: TrustAccount, now: number): RiskView;
  /** @param ownRules as in RiskOptions */
  configure(config: RiskConfig, ownRules: ReadonlySet<string>): void;
}

/** A user goes down as soon as the score is high, one step at a time, and up after a time of good use. */
export function createTrustRules(config: RiskConfig, rulesOfUsers: ReadonlySet<string>): TrustRules {
  let rules = config;
  let ownRules = rulesOfUsers;
  let trusts = trustsOf(config);

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

  function firstStep(createdAt: number, now: number): string {
    const isNew = now - createdAt < rules.promote_days * dayMs;
    const start = indexOf(rules.start);
    return nameAt(isNew ? start : Math.min(start + 1, rules.steps.length - 1));
  }

  function pinOf({ trust_step: pin }: TrustAccount): string | null {
    return pin !== undefined && trusts.has(pin) ? pin : null;
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
  function look(user: string, entry: Known, cause: Cause): TrustChanged | undefined {
    const { at } = cause;
    entry.lookAt = at + lookEveryMs;
    // A clock that was ahead for a while must not keep anybody where they are.
    entry.since = Math.min(entry.since, at);
    const { score, reasons } = scoreOf(entry, at);
    if (score >= rules.promote_score) entry.calmSince = at;
    entry.calmSince = Math.min(entry.calmSince, at);
    if (entry.pin !== null) return undefined;
    const step = indexOf(entry.step);
    if (score >= rules.demote_score) {
      const sinceDemoted = Math.abs(at - entry.demotedAt);
      if (step === 0 || sinceDemoted < rules.demote_pause_hours * hourMs) return undefined;
      entry.demotedAt = at;
      return move(user, entry, nameAt(step - 1), cause, ...reasons.map(({ text }) => text));
    }
    if (step + 1 >= rules.steps.length) return undefined;
    const calmMs = at - Math.max(entry.since, entry.calmSince);
    if (step < indexOf(rules.start)) {
      if (calmMs < rules.recover_hours * hourMs) return undefined;
      const calm = `a score below ${rules.promote_score} for ${rules.recover_hours} hours`;
      return move(user, entry, nameAt(step + 1), cause, calm);
    }
    const { promote_days: days, promote_active_days: active, promote_requests: most } = rules;
    if (calmMs < days * dayMs || entry.activeDays < active || entry.completed < most) return undefined;
    const reason = `${entry.completed} completed requests on ${entry.activeDays} days, with a score below ${rules.promote_score}`;
    return move(user, entry, nameAt(step + 1), cause, reason);
  }

  function move(user: string, entry: Known, to: string, cause: Cause, ...reasons: string[]): TrustChanged {
    const from = entry.step;
    entry.step = to;
    entry.since = cause.at;
    entry.completed = 0;
    entry.activeDays = 0;
    entry.lastActiveDay = -1;
    return report(user, entry, from, cause, reasons);
  }

  function report(
    user: string,
    entry: Known,
    from: string,
    { at, traceId, ip }: Cause,
    reasons: readonly string[],
  ): TrustChanged {
    const to = stepOf(entry);
    const direction = indexOf(to) > indexOf(from) ? "up" : "down";
    const score = Math.round(scoreOf(entry, at).score);
    return { type: "trust.changed", at, traceId, ip, user, from, to, direction, score, reasons };
  }

  return {
    enabled: () => rules.enabled,
    stepNames: () => [...trusts.keys()],
    trustAt,
    pinOf,
    begin({ created_at }, now) {
      const createdAt = created_at?.getTime() ?? 0;
      return {
        step: firstStep(createdAt, now),
        pin: null,
        since: now,
        calmSince: now,
        demotedAt: 0,
        createdAt,
        completed: 0,
        activeDays: 0,
        lastActiveDay: -1,
        lookAt: 0,
        behaviour: new Behaviour(),
      };
    },
    notePin(user, entry, pin, now) {
      const before = stepOf(entry);
      entry.pin = pin;
      if (stepOf(entry) === before) return undefined;
      const reason = pin === null ? "no longer pinned by an operator" : "pinned by an operator";
      return report(user, entry, before, { at: now, traceId: "", ip: "" }, [reason]);
    },
    noteRequest(entry, event) {
      const action = actionOf(event, ownRules);
      const { at, result } = action;
      entry.behaviour.note(action);
      if (result === "completed") {
        entry.completed++;
        const day = Math.floor(at / dayMs);
        if (day !== entry.lastActiveDay) entry.activeDays++;
        entry.lastActiveDay = day;
      }
      // A clock that is set back must not put it off.
      return at >= entry.lookAt || at < entry.lookAt - lookEveryMs ? look(event.user, entry, event) : undefined;
    },
    noteStolenSession(user, entry, cause) {
      entry.behaviour.noteStolenSession(cause.at);
      return look(user, entry, cause);
    },
    view(user, entry, now) {
      const { score, reasons } = scoreOf(entry, Math.max(now, entry.behaviour.lastAt));
      const { since, activeDays, completed } = entry;
      const trust = trustAt(stepOf(entry));
      return { user, trust, pinned: entry.pin !== null, since, score, reasons, activeDays, completed };
    },
    viewOfUnknown(account, now) {
      const pin = pinOf(account);
      const step = pin ?? firstStep(account.created_at?.getTime() ?? 0, now);
      const trust = rules.enabled ? trustAt(step) : neutralTrust;
      return {
        user: account.username,
        trust,
        pinned: pin !== null,
        since: null,
        score: 0,
        reasons: [],
        activeDays: 0,
        completed: 0,
      };
    },
    configure(next, nextOwnRules) {
      rules = next;
      ownRules = nextOwnRules;
      trusts = trustsOf(next);
    },
  };
}

function trustsOf({ steps }: RiskConfig): ReadonlyMap<string, Trust> {
  return new Map(steps.map(({ name, ...factors }) => [name, { step: name, ...factors }]));
}
