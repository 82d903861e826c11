import type { Sink } from "../bus.ts";
import type { Config } from "../../config/schema.ts";
import { eventFacts } from "../envelope.ts";
import { AddressRefusedError } from "../../lib/checked-lookup.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { createWebhookPost, type WebhookPostOptions, webhookSignature } from "./webhook-post.ts";

/** Where alerts go, and how. */
export interface WebhookSettings extends WebhookPostOptions {
  /** Signs the alerts. */
  readonly secret: string;
  /** Types of the events that are sent. */
  readonly events: readonly string[];
  /** Timeout of one attempt, in ms. */
  readonly timeoutMs: number;
  readonly maxAttempts: number;
  /** Maximum number of waiting alerts, including the one being sent. */
  readonly maxQueued: number;
}

export interface WebhookOptions extends WebhookSettings {
  /** ms before the second attempt; doubles up to a minute. */
  readonly firstRetryMs?: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly newId: () => string;
  /** From 0 to 1. */
  readonly random: () => number;
}

/** Why an alert was dropped: the queue was full; the receiver did not accept it; the proxy stopped. */
type AlertDropReason = "queue_full" | "undelivered" | "closed";

/** Sends alerts to a webhook. */
export interface Webhook {
  readonly sink: Sink;
  /** For metrics. */
  stats(): {
    readonly queued: number;
    readonly delivered: number;
    readonly dropped: Readonly<Record<AlertDropReason, number>>;
  };
  /** Sends with other settings from the next attempt on. Waiting alerts stay. */
  configure(settings: WebhookSettings): void;
  /** Retries the waiting alerts once, until the deadline in ms, and gives up on the rest. Later events are dropped. */
  close(deadlineMs: number): Promise<void>;
}

/** The outcome of one attempt: an HTTP status, or a short reason if there was none. */
interface Attempt {
  readonly result: number | string;
  readonly delivered: boolean;
  /** Whether another attempt may succeed. */
  readonly retry: boolean;
}

const maxRetryMs = 60_000;
/** Statuses with which a receiver asks for a retry. */
const retryStatuses = new Set([408, 425, 429]);

/**
 * POSTs events of the chosen types as JSON, one after another: `{id, at, event, ...facts}`. A retried alert has the
 * same `id`, but a new signature. A 2xx response accepts an alert; 408, 425, 429 and 5xx lead to a retry; all others
 * reject it for good, including redirects: they could lead anywhere.
 */
export function createWebhook(options: WebhookOptions): Webhook {
  const { firstRetryMs = 1000, clock, log, newId, random } = options;
  let settings: WebhookSettings = options;
  let wanted = new Set(options.events);
  let post = createWebhookPost(options);
  const queue: string[] = [];
  const dropped: Record<AlertDropReason, number> = { queue_full: 0, undelivered: 0, closed: 0 };
  let delivered = 0;
  let running: Promise<void> | undefined;
  let closing = false;
  let expired = false;
  /** Ends the current attempt or pause. */
  let interrupt: () => void = () => undefined;

  async function sendAll(): Promise<void> {
    for (let body = queue[0]; body !== undefined && !expired; body = queue[0]) {
      const { result, delivered: taken, retry } = await deliver(body);
      queue.shift();
      if (taken) delivered += 1;
      else if (closing && retry) dropped.closed += 1;
      else {
        dropped.undelivered += 1;
        // Never the path or the query: many services put a secret there.
        const { host } = new URL(settings.url);
        log.error({ host, result, undelivered: dropped.undelivered }, "an alert could not be delivered");
      }
    }
    dropped.closed += queue.splice(0).length;
    running = undefined;
  }

  async function deliver(body: string): Promise<Attempt> {
    for (let count = 1; ; count += 1) {
      const attempt = await tryOnce(body);
      if (!attempt.retry || count >= settings.maxAttempts || closing) return attempt;
      const waitMs = Math.min(firstRetryMs * 2 ** (count - 1), maxRetryMs);
      // Half of it is random, so that many senders don't retry at the same time.
      await pause(waitMs * (0.5 + random() / 2));
    }
  }

  async function tryOnce(body: string): Promise<Attempt> {
    const controller = new AbortController();
    const timer = setTimeout(() => {
      controller.abort(new Error("timeout"));
    }, settings.timeoutMs);
    interrupt = () => {
      if (expired) controller.abort(new Error("closed"));
    };
    try {
      const headers = {
        "content-type": "application/json",
        "user-agent": "deepseek-proxy",
        "x-signature": webhookSignature(settings.secret, body, clock.now()),
      };
      const status = await post.send(body, headers, controller.signal);
      const retry = status >= 500 || retryStatuses.has(status);
      return { result: status, delivered: status >= 200 && status < 300, retry };
    } catch (error) {
      return { result: reasonOf(error), delivered: false, retry: !(error instanceof AddressRefusedError) };
    } finally {
      clearTimeout(timer);
    }
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      timer.unref();
      interrupt = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  return {
    sink(event) {
      if (!wanted.has(event.type)) return;
      if (closing || queue.length >= settings.maxQueued) {
        dropped[closing ? "closed" : "queue_full"] += 1;
        return;
      }
      queue.push(JSON.stringify({ id: newId(), at: new Date(event.at).toISOString(), ...eventFacts(event) }));
      running ??= sendAll();
    },
    stats: () => ({ queued: queue.length, delivered, dropped: { ...dropped } }),
    configure(next) {
      const isElsewhere = next.url !== settings.url || next.allowPrivate !== settings.allowPrivate;
      settings = next;
      wanted = new Set(next.events);
      if (!isElsewhere) return;
      // An attempt that runs ends with an error, and is repeated at the new place.
      void post.close().catch(() => undefined);
      post = createWebhookPost(next);
    },
    async close(deadlineMs) {
      closing = true;
      interrupt();
      const timer = setTimeout(() => {
        expired = true;
        interrupt();
      }, deadlineMs);
      await running;
      clearTimeout(timer);
      await post.close();
    },
  };
}

/** Short, and without anything from the receiver. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return "unknown";
  return "code" in error && typeof error.code === "string" ? error.code : error.message;
}

const minSecretLength = 16;

/**
 * The settings of [alerts]; null if no webhook is configured.
 *
 * @throws Error if there is one without a secret to sign with: failing the start is better than alerts that can't be
 * trusted
 */
export function webhookSettings(alerts: Config["alerts"], secret = ""): WebhookSettings | null {
  const { webhook_url: url, secret_env: variable } = alerts;
  if (url === undefined) return null;
  if (secret.length < minSecretLength) {
    throw new Error(`alerts.webhook_url is set: set ${variable} to a secret of at least ${minSecretLength} characters`);
  }
  return {
    url,
    secret,
    events: alerts.events,
    allowPrivate: alerts.allow_private,
    timeoutMs: alerts.timeout_seconds * 1000,
    maxAttempts: alerts.max_attempts,
    maxQueued: alerts.max_queued,
  };
}
