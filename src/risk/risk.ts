import type { RiskConfig } from "../config/schema.ts";
import type { Emit, ProxyEvent } from "../events/catalogue.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import type { Clock } from "../lib/clock.ts";
import { createKnownUsers, type Known, type KnownUsers, type RiskRecord, stepOf, toRecord } from "./known-users.ts";
import { neutralTrust, type Trust } from "./trust.ts";
import {
  createTrustRules,
  type RiskView,
  type TrustAccount,
  type TrustChanged,
  type TrustRules,
} from "./trust-rules.ts";

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
  /**
   * Takes note of a pin that has just been changed. `trustOf` notices it by itself, but not before the user's next
   * request.
   */
  readonly notePin: (account: TrustAccount) => Awaitable<void>;
  /** Learns what other processes have noted until now, where there are some: of all users, or of one. */
  readonly refresh: (user?: string) => Awaitable<void>;
  /** How many known users are at each step. */
  counts(): ReadonlyMap<string, number>;
  /** @param ownRules as in RiskOptions */
  configure(config: RiskConfig, ownRules: ReadonlySet<string>): void;
  /** What has to be stored. */
  records(): Iterable<readonly [user: string, record: RiskRecord]>;
  /** Whether any of it has changed since the last call. */
  takeChanged(): boolean;
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

/** Creates the trust steps of one process. An operator's pin wins over what a user has earned. */
export function createRisk({ config, emit, clock, saved = new Map(), ownRules }: RiskOptions): Risk {
  const rules = createTrustRules(config, ownRules);
  const known = createKnownUsers(saved);
  let changed = false;

  function entryOf(account: TrustAccount): Known {
    const entry = known.get(account.username);
    if (entry?.createdAt === (account.created_at?.getTime() ?? 0)) return entry;
    const begun = rules.begin(account, clock.now());
    known.keep(account.username, begun);
    changed = true;
    return begun;
  }

  function change(entry: Known, work: () => TrustChanged | undefined): void {
    const event = known.change(entry, work);
    changed = true;
    if (event !== undefined) emit(event);
  }

  function trustOf(account: TrustAccount): Trust {
    if (!rules.enabled()) return neutralTrust;
    const entry = entryOf(account);
    const pin = rules.pinOf(account);
    if (pin !== entry.pin) change(entry, () => rules.notePin(account.username, entry, pin, clock.now()));
    return rules.trustAt(stepOf(entry));
  }

  return {
    ...createRiskViews({ rules, known, clock }),
    trustOf,
    notePin(account) {
      trustOf(account);
    },
    sink(event) {
      if (!rules.enabled()) return;
      if (event.type !== "chat.finished" && event.type !== "session.reuse_detected") return;
      const entry = known.get(event.user);
      if (entry === undefined) return;
      change(entry, () =>
        event.type === "chat.finished"
          ? rules.noteRequest(entry, event)
          : rules.noteStolenSession(event.user, entry, event),
      );
    },
    refresh: () => undefined,
    takeChanged() {
      const was = changed;
      changed = false;
      return was;
    },
  };
}

/** What a process says of the users that it knows. */
export function createRiskViews({
  rules,
  known,
  clock,
}: {
  readonly rules: TrustRules;
  readonly known: KnownUsers;
  readonly clock: Clock;
}): Pick<Risk, "enabled" | "stepNames" | "view" | "list" | "counts" | "configure" | "records"> {
  return {
    enabled: () => rules.enabled(),
    stepNames: () => rules.stepNames(),
    view(account) {
      const entry = known.get(account.username);
      // The pin of now, as in limits: it may have come with a file or a reload, and the user has asked nothing since.
      if (rules.enabled() && entry !== undefined)
        return rules.view(account.username, { ...entry, pin: rules.pinOf(account) }, clock.now());
      return rules.viewOfUnknown(account, clock.now());
    },
    list({ step, minScore, limit }) {
      if (!rules.enabled()) return { users: [], total: 0 };
      const users = Array.from(known.entries(), ([user, entry]) => rules.view(user, entry, clock.now()))
        .filter((view) => view.score >= minScore && (step === undefined || view.trust.step === step))
        .sort((a, b) => b.score - a.score || (a.user < b.user ? -1 : 1));
      return { users: users.slice(0, limit), total: users.length };
    },
    counts() {
      const counts = new Map(rules.stepNames().map((name) => [name, 0]));
      if (!rules.enabled()) return counts;
      for (const [name, users] of known.atStep()) {
        // Those of a step that the config no longer has are at the first one.
        const { step } = rules.trustAt(name);
        counts.set(step, (counts.get(step) ?? 0) + users);
      }
      return counts;
    },
    configure(next, nextOwnRules) {
      rules.configure(next, nextOwnRules);
    },
    *records() {
      for (const [name, entry] of known.entries()) yield [name, toRecord(entry)] as const;
    },
  };
}
