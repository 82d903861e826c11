import type { Clock } from "../lib/clock.ts";
import { addAmounts } from "../lib/money.ts";
import type { Sink } from "./bus.ts";
import { type ChatFinished, text } from "./catalogue.ts";

/** What became of the chats that ended within a minute, or an hour. Cost in nano-units by currency. */
interface Tally {
  ok: number;
  /** By the proxy, or by a provider as the client's fault. */
  refused: number;
  /** The provider's fault, or the proxy's. */
  failed: number;
  /** The client disconnected first. */
  client_gone: number;
  tokens: number;
  readonly cost: Record<string, number>;
}

/** A minute of all chats. */
interface MinuteOfChats extends Readonly<Tally> {
  /** When it began, in ms since the epoch. */
  readonly at: number;
  /** ms; null if no chat got a first event. */
  readonly first_token_p95_ms: number | null;
}

/** The chats of a model or provider within the last hour. */
interface ShareOfChats extends Readonly<Tally> {
  readonly name: string;
  readonly requests: number;
}

/** The chats of the last hour, counted while they end. Of this process alone, and empty after its start. */
export interface MinuteSeries {
  readonly sink: Sink;
  /** The last 60 minutes, the running one included, oldest first. */
  minutes(): readonly MinuteOfChats[];
  /** By most requests first. */
  byModel(): readonly ShareOfChats[];
  byProvider(): readonly ShareOfChats[];
}

interface Minute {
  readonly number: number;
  readonly all: Tally;
  readonly byModel: Map<string, Tally>;
  readonly byProvider: Map<string, Tally>;
  readonly firstEvents: number[];
  first: number;
}

const minuteMs = 60_000;
const kept = 60;
/** Where a provider takes any model, clients choose its name: beyond so many a minute, the rest is counted together. */
const maxNames = 100;
/** Times of first events that are kept for a minute: then the latest of them. */
const maxTimes = 500;

export function createMinuteSeries(clock: Clock): MinuteSeries {
  const ring: (Minute | undefined)[] = [];
  const numberOf = (at: number): number => Math.floor(at / minuteMs);

  function minuteOf(at: number): Minute {
    const number = numberOf(at);
    const slot = number % kept;
    const known = ring[slot];
    if (known?.number === number) return known;
    const made = { number, all: emptyTally(), byModel: new Map(), byProvider: new Map(), firstEvents: [], first: 0 };
    ring[slot] = made;
    return made;
  }

  /** Those that are not over for an hour. The clock may have been set back since. */
  function current(): readonly Minute[] {
    const now = numberOf(clock.now());
    return ring
      .filter((minute) => minute !== undefined)
      .filter(({ number }) => number > now - kept && number <= now)
      .sort((a, b) => a.number - b.number);
  }

  function shares(of: (minute: Minute) => ReadonlyMap<string, Tally>): readonly ShareOfChats[] {
    const sums = new Map<string, Tally>();
    for (const minute of current()) {
      for (const [name, tally] of of(minute)) addTally(tallyOf(sums, name, Infinity), tally);
    }
    return [...sums]
      .map(([name, tally]) => ({ name, requests: requestsOf(tally), ...tally }))
      .sort((a, b) => b.requests - a.requests);
  }

  return {
    sink(event) {
      if (event.type !== "chat.finished") return;
      const minute = minuteOf(event.at);
      count(minute.all, event);
      // Names that no provider was asked for are made up, perhaps many of them, and long.
      if (event.provider !== "") {
        count(tallyOf(minute.byModel, text(event.model), maxNames), event);
        count(tallyOf(minute.byProvider, event.provider, maxNames), event);
      }
      if (event.firstEventMs !== null) minute.firstEvents[minute.first++ % maxTimes] = event.firstEventMs;
    },
    minutes() {
      const byNumber = new Map(current().map((minute) => [minute.number, minute]));
      const now = numberOf(clock.now());
      return Array.from({ length: kept }, (_, index) => {
        const number = now - kept + 1 + index;
        const minute = byNumber.get(number);
        const all = minute?.all ?? emptyTally();
        return { at: number * minuteMs, ...all, cost: { ...all.cost }, first_token_p95_ms: p95(minute?.firstEvents) };
      });
    },
    byModel: () => shares(({ byModel }) => byModel),
    byProvider: () => shares(({ byProvider }) => byProvider),
  };
}

/** All that ended. */
export function requestsOf({ ok, refused, failed, client_gone: gone }: Readonly<Tally>): number {
  return ok + refused + failed + gone;
}

function emptyTally(): Tally {
  return { ok: 0, refused: 0, failed: 0, client_gone: 0, tokens: 0, cost: {} };
}

function tallyOf(tallies: Map<string, Tally>, name: string, max: number): Tally {
  const key = tallies.has(name) || tallies.size < max ? name : "other";
  let tally = tallies.get(key);
  if (tally === undefined) tallies.set(key, (tally = emptyTally()));
  return tally;
}

function count(tally: Tally, event: ChatFinished): void {
  tally[fieldOf(event)]++;
  // Those that are charged, as the cost beside them.
  if (event.requests > 0) tally.tokens = addAmounts(tally.tokens, event.inputTokens + event.outputTokens);
  if (event.cost !== 0) addCost(tally, event.currency, event.cost);
}

function fieldOf({ code, status, outcome }: ChatFinished): "ok" | "refused" | "failed" | "client_gone" {
  if (outcome === "client_gone" || status === 0) return "client_gone";
  if (code === "ok") return "ok";
  return status >= 400 && status < 500 ? "refused" : "failed";
}

function addTally(to: Tally, { cost, ...counts }: Tally): void {
  for (const name of ["ok", "refused", "failed", "client_gone", "tokens"] as const)
    to[name] = addAmounts(to[name], counts[name]);
  for (const [currency, nano] of Object.entries(cost)) addCost(to, currency, nano);
}

function addCost({ cost }: Tally, currency: string, nano: number): void {
  cost[currency] = addAmounts(cost[currency] ?? 0, nano);
}

function p95(times: readonly number[] = []): number | null {
  const sorted = [...times].sort((a, b) => a - b);
  const at = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.95))];
  return at === undefined ? null : Math.round(at * 10) / 10;
}
