import { z } from "zod";
import { Behaviour, behaviourSchema } from "./behaviour.ts";

/** Most users whose behaviour is remembered; beyond it those are forgotten who have been away longest. */
const maxUsers = 10_000;

/** A user as it is stored. */
export const riskRecordSchema = z.object({
  step: z.string(),
  pin: z.string().nullable(),
  since: z.number(),
  calm_since: z.number(),
  demoted_at: z.number(),
  created_at: z.number(),
  completed: z.number(),
  active_days: z.number(),
  last_active_day: z.number(),
  behaviour: behaviourSchema,
});
export type RiskRecord = z.infer<typeof riskRecordSchema>;

/** A user whose behaviour is known. */
export interface Known {
  /** The step that the user has earned. */
  step: string;
  /** The step to which an operator has pinned the user; null: none. */
  pin: string | null;
  /** When the step began, and since when the score has been low, in ms since the epoch. */
  since: number;
  calmSince: number;
  /** When the user last went down; 0: never. */
  demotedAt: number;
  /** created_at of the account: another account of the same name begins anew. */
  readonly createdAt: number;
  completed: number;
  activeDays: number;
  lastActiveDay: number;
  /** When the score is worked out again. */
  lookAt: number;
  readonly behaviour: Behaviour;
}

/** The users whose behaviour is known, and how many are at each step: a scrape of the metrics must not go through all. */
export interface KnownUsers {
  get(user: string): Known | undefined;
  entries(): Iterable<readonly [user: string, entry: Known]>;
  /** Adds a user, or begins anew. Where there are too many, those are forgotten who have been away longest. */
  keep(user: string, entry: Known): void;
  /** Runs what may change the step in force of one that is kept. Nothing else may. */
  change<T>(entry: Known, work: () => T): T;
  /** How many users are at each step, which the config may have no more. */
  atStep(): ReadonlyMap<string, number>;
}

/** @param saved what was stored */
export function createKnownUsers(saved: ReadonlyMap<string, RiskRecord>): KnownUsers {
  const known = new Map<string, Known>();
  const counts = new Map<string, number>();
  for (const [name, record] of saved) add(name, fromRecord(record));

  function count(step: string, by: 1 | -1): void {
    const users = (counts.get(step) ?? 0) + by;
    if (users === 0) counts.delete(step);
    else counts.set(step, users);
  }

  function add(user: string, entry: Known): void {
    known.set(user, entry);
    count(stepOf(entry), 1);
  }

  function forget(user: string): void {
    const entry = known.get(user);
    if (entry !== undefined) count(stepOf(entry), -1);
    known.delete(user);
  }

  function forgetOldest(): void {
    const byAge = [...known].sort(([, a], [, b]) => a.behaviour.lastAt - b.behaviour.lastAt);
    for (const [name] of byAge.slice(0, maxUsers / 10)) forget(name);
  }

  return {
    get: (user) => known.get(user),
    entries: () => known,
    keep(user, entry) {
      if (known.size >= maxUsers) forgetOldest();
      forget(user);
      add(user, entry);
    },
    change(entry, work) {
      const before = stepOf(entry);
      try {
        return work();
      } finally {
        const after = stepOf(entry);
        if (after !== before) {
          count(before, -1);
          count(after, 1);
        }
      }
    },
    atStep: () => counts,
  };
}

/** The step in force: a pin hides the step that the user has earned. */
export function stepOf({ pin, step }: Known): string {
  return pin ?? step;
}

export function toRecord(entry: Known): RiskRecord {
  return {
    step: entry.step,
    pin: entry.pin,
    since: entry.since,
    calm_since: entry.calmSince,
    demoted_at: entry.demotedAt,
    created_at: entry.createdAt,
    completed: entry.completed,
    active_days: entry.activeDays,
    last_active_day: entry.lastActiveDay,
    behaviour: entry.behaviour.record,
  };
}

export function fromRecord(record: RiskRecord): Known {
  return {
    step: record.step,
    pin: record.pin,
    since: record.since,
    calmSince: record.calm_since,
    demotedAt: record.demoted_at,
    createdAt: record.created_at,
    completed: record.completed,
    activeDays: record.active_days,
    lastActiveDay: record.last_active_day,
    lookAt: 0,
    behaviour: new Behaviour(record.behaviour),
  };
}
