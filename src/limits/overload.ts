import type { Config } from "../config/schema.ts";
import type { LoadReading } from "../lib/load-reading.ts";

/** What is overloaded. */
type OverloadReason = "event_loop" | "heap" | "descriptors";

/** Where signs of overload begin, and where everything is refused. */
type OverloadRule = Config["overload"];

/** How overloaded the process is. */
export interface Overload {
  /** 0: not at all; 1: nothing new can be taken; between them, the part of the work that is to be refused. */
  level(): number;
  /** What level() is due to; null while it is 0. */
  reason(): OverloadReason | null;
  /** The last reading. */
  reading(): LoadReading;
  /**
   * Whether a new request is refused. Of those for which the level says "some", evenly so many are.
   *
   * @param rank of its tier, 0 for the lightest
   * @param ranks how many there are
   */
  sheds(rank: number, ranks: number): boolean;
  close(): void;
}

export interface OverloadOptions {
  /** The rule in force. */
  readonly rule: () => OverloadRule;
  /** Called every sampleMs. */
  readonly read: () => LoadReading;
  /** Chats in progress. */
  readonly running: () => number;
  /** ms that only grow. */
  readonly monotonic: () => number;
  /** Called when an overload begins, and when it has been over for a while. */
  readonly onChange: (change: {
    readonly began: boolean;
    readonly level: number;
    readonly reason: OverloadReason;
  }) => void;
}

/**
 * How often the load is read, in ms. Short, because a loop whose turns take longer than this runs the timer once a turn:
 * then the delay that is read is the turn but for so much.
 */
export const sampleMs = 25;
/** An overload is over once no sign has come near its limit for so long, in ms. */
const calmMs = 1000;
const nearShare = 0.8;
/** So many readings in turn must show a delay of the event loop: a single pause of the machine is no overload. */
const readings = 5;
/** With fewer chats in progress the event loop is not late because of them, and refusing others would not help. */
const fewRunning = 32;
/** Levels that differ less are the same. */
const closeEnough = 0.02;
/** How fast the level follows the signs; 1 is at once. */
const following = 0.25;

/**
 * Watches the load, so that new work is refused before what runs becomes slow. For the event loop the least of the last
 * delays counts, as CoDel does with queues (RFC 8289): only a delay that stays is a queue that is too long. The level
 * goes a quarter of the way to what the signs say with each reading, so that it doesn't swing between all and nothing.
 */
export function createOverload({ rule, read, running, monotonic, onChange }: OverloadOptions): Overload {
  let reading: LoadReading = { loopDelayMs: 0, heapShare: 0, descriptorShare: 0 };
  let level = 0;
  let reason: OverloadReason | null = null;
  /** Why an overload goes on; null if there is none. */
  let ongoing: OverloadReason | null = null;
  let calmSince: number | null = null;
  /** By rank: what is still to be refused of the requests seen, below 1. */
  const due: number[] = [];
  const delays: number[] = [];

  function sample(): void {
    reading = read();
    delays.push(reading.loopDelayMs);
    if (delays.length > readings) delays.shift();
    const isLate = delays.length === readings && running() >= fewRunning;
    const loopDelayMs = isLate ? Math.min(...delays) : 0;
    const signs = rule().enabled ? signsOf({ ...reading, loopDelayMs }, rule()) : [];
    const [worst] = [...signs].sort((a, b) => b.level - a.level);
    const target = worst === undefined ? 0 : Math.min(1, Math.max(0, worst.level));
    level += (target - level) * following;
    if (Math.abs(target - level) < closeEnough) level = target;
    if (target > 0) reason = worst?.reason ?? null;
    else if (level === 0) reason = null;
    follow(signs.some(({ isNear }) => isNear));
  }

  /** Reports the begin and the end of an overload. */
  function follow(isNear: boolean): void {
    const at = monotonic();
    if (ongoing === null) {
      if (reason === null) return;
      ongoing = reason;
      calmSince = null;
      onChange({ began: true, level, reason });
      return;
    }
    if (isNear) calmSince = null;
    else calmSince ??= at;
    if (calmSince === null || at - calmSince < calmMs) return;
    onChange({ began: false, level: 0, reason: ongoing });
    ongoing = null;
  }

  const timer = setInterval(sample, sampleMs).unref();

  return {
    level: () => level,
    reason: () => reason,
    reading: () => reading,
    sheds(rank, ranks) {
      if (level === 0) return false;
      const share = level * ranks - rank;
      if (share >= 1) return true;
      if (share <= 0) return false;
      const sum = (due[rank] ?? 0) + share;
      due[rank] = sum >= 1 ? sum - 1 : sum;
      return sum >= 1;
    },
    close() {
      clearInterval(timer);
    },
  };
}

interface Sign {
  readonly reason: OverloadReason;
  /** As Overload.level, but not bounded. */
  readonly level: number;
  readonly isNear: boolean;
}

function signsOf({ loopDelayMs, heapShare, descriptorShare }: LoadReading, rule: OverloadRule): readonly Sign[] {
  return [
    signOf("event_loop", loopDelayMs, rule.loop_delay_ms, rule.loop_delay_hard_ms),
    signOf("heap", heapShare * 100, rule.heap_percent, rule.heap_hard_percent),
    signOf("descriptors", descriptorShare * 100, rule.descriptors_percent, rule.descriptors_hard_percent),
  ];
}

function signOf(reason: OverloadReason, value: number, soft: number, hard: number): Sign {
  return { reason, level: (value - soft) / (hard - soft), isNear: value >= nearShare * soft };
}
