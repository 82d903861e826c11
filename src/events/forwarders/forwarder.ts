import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Envelope } from "../envelope.ts";
import type { SpoolReader } from "../spool/spool-reader.ts";
import type { LossReason, SpoolRecord } from "../spool/spool-segment.ts";

/** An outside system that takes events. One call of `connect` or `send` at a time. */
export interface EventTarget {
  /** Most events that `send` may be given. */
  readonly maxBatch: number;
  /** Rejects if it can't be reached or used. Does nothing where it is connected. */
  connect(): Promise<void>;
  /**
   * Resolves once all are taken, in this order. Where it rejects some or all may have been taken, and they are sent
   * again. Must end by itself: nothing waits longer for it.
   *
   * @throws RefusedError
   */
  send(events: readonly Envelope[]): Promise<void>;
  isConnected(): boolean;
  /** Rejects what is being sent. */
  close(): Promise<void>;
}

/** The batch will never be taken as it is; smaller ones may be. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
}

/** What is known of a forwarder, for health and metrics. */
export interface ForwarderStatus {
  /** "redis" or "kafka". */
  readonly sink: string;
  readonly connected: boolean;
  /** What has not been acknowledged. */
  readonly lag: { readonly events: number; readonly bytes: number };
  /** ms since the epoch; null: not since the start. */
  readonly lastSuccessAt: number | null;
  /** Why the latest attempt failed; null if it did not. */
  readonly lastError: string | null;
  /** Events acknowledged since the start, repetitions not counted. */
  readonly forwarded: number;
  /** Events that it will never get, by reason, since the start. */
  readonly lost: Readonly<Partial<Record<LossReason, number>>>;
}

export interface Forwarder {
  status(): ForwarderStatus;
  /** Sends what is left, until the deadline in ms or a failure: the rest is sent after the next start. */
  close(deadlineMs: number): Promise<void>;
}

export interface ForwarderOptions {
  readonly name: string;
  readonly reader: SpoolReader;
  readonly target: EventTarget;
  readonly clock: Clock;
  readonly log: Log;
  /** From 0 to 1. */
  readonly random: () => number;
  /** ms before the second attempt; doubles up to 5 s. */
  readonly firstRetryMs?: number;
}

/** After an idle time, events are collected for so many ms: a batch costs little more than an event. */
const collectMs = 20;
const maxRetryMs = 5000;
const maxErrorLength = 200;

/**
 * Carries events from the spool to an outside system: in order, one batch at a time, each until it is acknowledged. A
 * crash repeats what was acknowledged since the position was last saved; consumers recognise it by the event's id.
 */
export function createForwarder(options: ForwarderOptions): Forwarder {
  const { name, reader, target, clock, log, random, firstRetryMs = 200 } = options;
  let pending: readonly SpoolRecord[] = [];
  let batchSize = target.maxBatch;
  let forwarded = 0;
  let failures = 0;
  let lastSuccessAt: number | null = null;
  let lastError: string | null = null;
  let closing = false;
  let expired = false;
  /** Ends the current pause. */
  let interrupt: () => void = () => undefined;

  async function run(): Promise<void> {
    while (!expired) {
      try {
        if (pending.length === 0) pending = await reader.read();
        if (pending.length === 0 && target.isConnected()) {
          if (closing) return;
          await reader.more();
          await pause(collectMs);
          continue;
        }
        await target.connect();
        if (pending.length > 0) await sendBatch();
        succeeded();
      } catch (error) {
        if (error instanceof RefusedError) refused(error);
        else {
          failed(error);
          if (closing) return;
          await pause(Math.min(maxRetryMs, firstRetryMs * 2 ** Math.min(failures - 1, 20)) * (0.5 + random() / 2));
        }
      }
    }
  }

  async function sendBatch(): Promise<void> {
    const batch = pending.slice(0, batchSize);
    const events = batch.flatMap(({ text }) => parseEnvelope(text) ?? []);
    if (events.length > 0) await target.send(events);
    forwarded += events.length;
    reader.lose("damaged", batch.length - events.length);
    done(batch.length);
    batchSize = target.maxBatch;
  }

  /** The first events of `pending` are dealt with. */
  function done(count: number): void {
    const last = pending[count - 1];
    pending = pending.slice(count);
    if (last !== undefined) reader.acknowledge(last.seq);
  }

  function succeeded(): void {
    if (failures > 0) log.info({ event: "forwarder.recovered", sink: name, failures }, "events are forwarded again");
    failures = 0;
    lastError = null;
    lastSuccessAt = clock.now();
  }

  function failed(error: unknown): void {
    failures += 1;
    lastError = reasonOf(error);
    // One line for an outage.
    if (failures === 1) log.warn({ event: "forwarder.failed", sink: name, err: error }, "events can't be forwarded");
  }

  /** Halves the batch, down to the one event that is to blame. */
  function refused(error: RefusedError): void {
    const size = Math.min(batchSize, pending.length);
    if (size > 1) {
      batchSize = Math.ceil(size / 2);
      return;
    }
    log.error({ event: "forwarder.refused", sink: name, err: error }, "an event was refused, and is lost for the sink");
    reader.lose("refused", 1);
    done(1);
    batchSize = target.maxBatch;
  }

  function pause(ms: number): Promise<void> {
    if (closing) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      interrupt = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  const running = run();
  return {
    status: () => ({
      sink: name,
      connected: target.isConnected() && lastError === null,
      lag: reader.lag(),
      lastSuccessAt,
      lastError,
      forwarded,
      lost: reader.lost(),
    }),
    async close(deadlineMs) {
      closing = true;
      interrupt();
      reader.wake();
      // A target that is away now is not waited for.
      const waitMs = lastError === null ? deadlineMs : 0;
      await deadlineOf(waitMs, running, () => new Error("closed")).catch(() => undefined);
      expired = true;
      await target.close();
    },
  };
}

/** Undefined for what no version of the proxy has written. */
function parseEnvelope(text: string): Envelope | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const isEnvelope =
      typeof value === "object" && value !== null && "id" in value && "data" in value && "type" in value;
    return isEnvelope ? (value as Envelope) : undefined;
  } catch {
    return undefined;
  }
}

/** Short, for people. */
function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).slice(0, maxErrorLength);
}

/** The answer, or the error of `onLate` after `ms`. The answer may still come; then nobody has it. */
export async function deadlineOf<T>(ms: number, answer: Promise<T>, onLate: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(onLate());
    }, ms);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
