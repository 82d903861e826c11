import { z } from "zod";
import type { ChatFinished } from "../events/catalogue.ts";
import { ipPrefix } from "../lib/ip-list.ts";
import { addAmounts } from "../lib/money.ts";
import type { SignalName } from "./signals.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Counts halve in so long, in ms. */
const halfLifeMs = dayMs;
/** The hours of the past count half after so many days. */
const pastHalfLifeDays = 7;
/** Most networks and client programs that are told apart; more than any signal needs. */
const maxSeen = 32;
/** How many active days are remembered with their tokens. */
const pastDays = 14;
/** Fewer active days than these, or fewer requests, are no past to compare with. */
const leastPastDays = 5;
const leastPastRequests = 50;
const leastTodayRequests = 20;
/** A day with fewer tokens counts as one with so many: who hardly used anything may use something. */
const leastTokensOfDay = 20_000;
/** An hour, with those before and after it, is usual if it has had this share of the requests of the past. */
const usualShare = 0.02;

/** Limits that only the user can exhaust, beside rules by user or by key. Those of a group or of all, others can. */
const ownLimits: ReadonlySet<string> = new Set(["user quota", "concurrency"]);

/** A finished request, as far as a user's behaviour shows in it. */
export interface Action {
  /** ms since the epoch. */
  readonly at: number;
  readonly ip: string;
  /** The client program; "" if it is unknown. */
  readonly client: string;
  readonly result: "completed" | "failed" | "over_limit" | "abandoned" | "other";
  /** Input and output. */
  readonly tokens: number;
}

/**
 * What a finished request shows.
 * @param ownRules names of the rules of rates that count a user or a key alone
 */
export function actionOf(event: ChatFinished, ownRules: ReadonlySet<string>): Action {
  const { at, ip, client, requests, inputTokens, outputTokens } = event;
  // What a provider broke off is charged to nobody, and counts for nobody.
  const tokens = requests > 0 ? inputTokens + outputTokens : 0;
  return { at, ip, client, result: resultOf(event, ownRules), tokens };
}

function resultOf(
  { outcome, refusedBy, status, firstEventMs }: ChatFinished,
  ownRules: ReadonlySet<string>,
): Action["result"] {
  if (outcome === "completed") return "completed";
  if (outcome === "client_gone") return firstEventMs === null ? "abandoned" : "other";
  if (refusedBy !== "") return ownLimits.has(refusedBy) || ownRules.has(refusedBy) ? "over_limit" : "other";
  // An error of the client's: not one of ours, of a provider, or of the account.
  return status >= 400 && status < 500 && status !== 429 ? "failed" : "other";
}

const amount = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const moment = z.number().min(0).max(8.64e15);
const seen = z.array(z.tuple([z.string().max(64), moment])).max(maxSeen);
const hourCounts = z.array(amount).length(24);

/** The record of a user's behaviour as it is stored. */
export const behaviourSchema = z.object({
  at: moment,
  requests: amount,
  failed: amount,
  over_limit: amount,
  abandoned: amount,
  stolen: amount,
  minute: amount,
  in_minute: amount,
  peak: amount,
  networks: seen,
  clients: seen,
  day: amount,
  hours_today: hourCounts,
  hours_past: hourCounts,
  tokens_today: amount,
  tokens_past: z.array(amount).max(pastDays),
});
export type BehaviourRecord = z.infer<typeof behaviourSchema>;

/** What one user has done lately, in bounded memory. Days and hours are those of UTC: they are only compared. */
export class Behaviour {
  readonly #record: BehaviourRecord;
  /** The address of the latest action, and its network. */
  #ip = "";
  #network = "";

  constructor(record: BehaviourRecord = emptyRecord()) {
    this.#record = record;
  }

  /** As it is stored. */
  get record(): BehaviourRecord {
    return this.#record;
  }

  /** When the user last did anything, in ms since the epoch. */
  get lastAt(): number {
    return this.#record.at;
  }

  /** Takes note of a finished request. Constant time. */
  note(action: Action): void {
    const { at, ip, client, result, tokens } = action;
    const record = this.#record;
    this.#age(at);
    record.requests++;
    if (result === "failed") record.failed++;
    else if (result === "over_limit") record.over_limit++;
    else if (result === "abandoned") record.abandoned++;
    const minute = Math.floor(at / 60_000);
    record.in_minute = minute === record.minute ? record.in_minute + 1 : 1;
    record.minute = minute;
    record.peak = Math.max(record.peak, record.in_minute);
    if (ip !== this.#ip) [this.#ip, this.#network] = [ip, networkOf(ip)];
    if (this.#network !== "") see(record.networks, this.#network, at);
    if (client !== "") see(record.clients, client, at);
    const hour = Math.floor(at / hourMs) % 24;
    record.hours_today[hour] = (record.hours_today[hour] ?? 0) + 1;
    record.tokens_today = addAmounts(record.tokens_today, tokens);
  }

  /** Takes note that one of the user's refresh tokens was used twice. */
  noteStolenSession(at: number): void {
    this.#age(at);
    this.#record.stolen++;
  }

  /**
   * The signals' values now; those are missing that nothing can be said about yet.
   * @param minRequests shares need so many requests
   */
  measure(at: number, minRequests: number): ReadonlyMap<SignalName, number> {
    this.#age(at);
    const { requests, failed, over_limit, abandoned, stolen, peak, networks, clients } = this.#record;
    const values = new Map<SignalName, number>();
    if (requests >= minRequests) {
      values.set("failures", failed / requests);
      values.set("refusals", over_limit / requests);
      values.set("abandoned", abandoned / requests);
    }
    values.set("bursts", peak);
    values.set("addresses", seenSince(networks, at - dayMs));
    values.set("clients", seenSince(clients, at - dayMs));
    values.set("stolen_sessions", stolen);
    const odd = this.#oddHours();
    if (odd !== null) values.set("odd_hours", odd);
    const spend = this.#spend();
    if (spend !== null) values.set("spend", spend);
    return values;
  }

  /** The share of today's requests at hours that were hardly ever used before; null without a past. */
  #oddHours(): number | null {
    const { hours_today: today, hours_past: past, tokens_past } = this.#record;
    const before = sumOf(past);
    const now = sumOf(today);
    if (tokens_past.length < leastPastDays || before < leastPastRequests || now < leastTodayRequests) return null;
    let odd = 0;
    for (let hour = 0; hour < 24; hour++) {
      const around = (past[(hour + 23) % 24] ?? 0) + (past[hour] ?? 0) + (past[(hour + 1) % 24] ?? 0);
      if (around < usualShare * before) odd += today[hour] ?? 0;
    }
    return odd / now;
  }

  /** Today's tokens against the mean of the active days; null without a past. */
  #spend(): number | null {
    const { tokens_today, tokens_past } = this.#record;
    if (tokens_past.length < leastPastDays) return null;
    return tokens_today / Math.max(leastTokensOfDay, sumOf(tokens_past) / tokens_past.length);
  }

  /** Lets the past fade up to this moment. A clock that is set back lets nothing fade. */
  #age(at: number): void {
    const record = this.#record;
    const passed = at - record.at;
    if (passed > 0) {
      const factor = 2 ** (-passed / halfLifeMs);
      record.requests *= factor;
      record.failed *= factor;
      record.over_limit *= factor;
      record.abandoned *= factor;
      record.stolen *= factor;
      record.peak *= factor;
    } else if (passed < 0) {
      // What was seen under a clock that was ahead must not count for longer than what is seen now.
      for (const entry of [...record.networks, ...record.clients]) entry[1] = Math.min(entry[1], at);
    }
    record.at = at;
    const day = Math.floor(at / dayMs);
    if (day !== record.day) this.#beginDay(day);
  }

  #beginDay(day: number): void {
    const record = this.#record;
    const fade = 2 ** (-Math.max(0, day - record.day) / pastHalfLifeDays);
    if (sumOf(record.hours_today) > 0) {
      record.tokens_past.push(record.tokens_today);
      if (record.tokens_past.length > pastDays) record.tokens_past.shift();
    }
    for (let hour = 0; hour < 24; hour++) {
      record.hours_past[hour] = ((record.hours_past[hour] ?? 0) + (record.hours_today[hour] ?? 0)) * fade;
      record.hours_today[hour] = 0;
    }
    record.tokens_today = 0;
    record.day = day;
  }
}

function emptyRecord(): BehaviourRecord {
  const none = (): number[] => Array<number>(24).fill(0);
  return {
    at: 0,
    requests: 0,
    failed: 0,
    over_limit: 0,
    abandoned: 0,
    stolen: 0,
    minute: 0,
    in_minute: 0,
    peak: 0,
    networks: [],
    clients: [],
    day: 0,
    hours_today: none(),
    hours_past: none(),
    tokens_today: 0,
    tokens_past: [],
  };
}

/** The network of an address, which a user rarely leaves at home or at work: /24, in IPv6 /48. */
function networkOf(ip: string): string {
  const prefix = ipPrefix(ip, 48);
  const [a, b, c, d] = prefix.split(".");
  return d === undefined ? prefix : `${a}.${b}.${c}.0/24`;
}

/** Notes that a name was seen; if there are too many, the one forgotten longest goes. */
function see(names: [string, number][], name: string, at: number): void {
  let oldest = 0;
  for (let index = 0; index < names.length; index++) {
    const entry = names[index];
    if (entry === undefined) continue;
    if (entry[0] === name) {
      entry[1] = at;
      return;
    }
    if (entry[1] < (names[oldest]?.[1] ?? 0)) oldest = index;
  }
  if (names.length < maxSeen) names.push([name, at]);
  else names[oldest] = [name, at];
}

function seenSince(names: readonly (readonly [string, number])[], since: number): number {
  let count = 0;
  for (const [, at] of names) if (at >= since) count++;
  return count;
}

function sumOf(numbers: readonly number[]): number {
  let sum = 0;
  for (const number of numbers) sum += number;
  return sum;
}
