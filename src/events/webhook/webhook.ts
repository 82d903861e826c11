import type { Sink } from "../bus.ts";
import type { Config } from "../../config/schema.ts";
import type { ProxyEvent } from "../catalogue.ts";
import { type Envelopes, eventFacts } from "../envelope.ts";
import { AddressRefusedError } from "../../lib/checked-lookup.ts";
import type { Clock } from "../../lib/clock.ts";
import { createAllowList } from "../../lib/globs.ts";
import type { Log } from "../../lib/log.ts";
import { readRetryAfter } from "../../lib/retry-after.ts";
import type { DeadLetters } from "./dead-letters.ts";
import {
  createWebhookPost,
  secretBytes,
  standardHeaders,
  type WebhookPostOptions,
  webhookSignature,
} from "./webhook-post.ts";

/** Where alerts go, and how. */
export interface WebhookSettings extends WebhookPostOptions {
  /** Signs the alerts. */
  readonly secret: string;
  /** Types of the events that are sent. */
  readonly events: readonly string[];
  /** Globs: an event about a user, a group or a provider is only sent if its name matches one; all are if absent. */
  readonly users?: readonly string[] | undefined;
  readonly groups?: readonly string[] | undefined;
  readonly providers?: readonly string[] | undefined;
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
  readonly envelopes: Pick<Envelopes, "idOf">;
  readonly newId: () => string;
  /** From 0 to 1. */
  readonly random: () => number;
  /** Where alerts go that no receiver took. */
  readonly deadLetters?: Pick<DeadLetters, "add"> | undefined;
}

/** What became of a test alert. */
export interface AlertTest {
  readonly delivered: boolean;
  /** The receiver's HTTP status, or a short reason if there was none. */
  readonly result: number | string;
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
  /** Sends an alert with the event `alerts.test` now, once, beside the queue. */
  test(): Promise<AlertTest>;
  /** Sends with other settings from the next attempt on. Waiting alerts stay. */
  configure(settings: WebhookSettings): void;
  /** Retries the waiting alerts once, until the deadline in ms, and gives up on the rest. Later events are dropped. */
  close(deadlineMs: number): Promise<void>;
}

/** A waiting alert. */
interface Alert {
  readonly id: string;
  readonly body: string;
}

interface Attempt extends AlertTest {
  /** Whether another attempt may succeed. */
  readonly retry: boolean;
  /** The pause before it that the receiver has asked for, in ms. */
  readonly askedMs?: number | undefined;
}

const maxRetryMs = 60_000;
/** Statuses with which a receiver asks for a retry. */
const retryStatuses = new Set([408, 425, 429]);

/**
 * POSTs events of the chosen types as JSON, one after another: `{id, at, event, ...facts}`. A retried alert has the
 * same `id`, that of the event, but a new signature. A 2xx response accepts an alert; 408, 425, 429 and 5xx lead to a
 * retry, after Retry-After where that is longer; all others reject it for good, including redirects: they could lead
 * anywhere.
 */
export function createWebhook(options: WebhookOptions): Webhook {
  const { firstRetryMs = 1000, clock, log, envelopes, newId, random, deadLetters } = options;
  let settings: WebhookSettings = options;
  let isWanted = createFilter(options);
  let post = createWebhookPost(options);
  const queue: Alert[] = [];
  const dropped: Record<AlertDropReason, number> = { queue_full: 0, undelivered: 0, closed: 0 };
  let delivered = 0;
  let running: Promise<void> | undefined;
  let closing = false;
  let expired = false;
  /** Ends the current attempt or pause. */
  let interrupt: () => void = () => undefined;

  async function sendAll(): Promise<void> {
    for (let alert = queue[0]; alert !== undefined && !expired; alert = queue[0]) {
      const { result, delivered: taken, retry } = await deliver(alert);
      queue.shift();
      if (taken) delivered += 1;
      else {
        const isClosed = closing && retry;
        dropped[isClosed ? "closed" : "undelivered"] += 1;
        const { host } = new URL(settings.url);
        if (!isClosed) log.error({ host, result, undelivered: dropped.undelivered }, "an alert could not be delivered");
        await deadLetters?.add([deadLetter(alert, result)]);
      }
    }
    const rest = queue.splice(0);
    if (rest.length > 0) {
      dropped.closed += rest.length;
      await deadLetters?.add(rest.map((alert) => deadLetter(alert, "closed")));
    }
    // Without a pause behind the last look at the queue: an alert that comes in it would wait for the next one.
    running = undefined;
  }

  /** Never the path or the query of the URL: many services put a secret there. */
  function deadLetter({ body }: Alert, result: number | string): string {
    const { host } = new URL(settings.url);
    return `${JSON.stringify({ ts: new Date(clock.now()).toISOString(), host, result }).slice(0, -1)},"alert":${body}}`;
  }

  async function deliver(alert: Alert): Promise<Attempt> {
    for (let count = 1; ; count += 1) {
      const attempt = await tryOnce(alert, (abort) => {
        interrupt = () => {
          if (expired) abort();
        };
      });
      if (!attempt.retry || count >= settings.maxAttempts || closing) return attempt;
      const waitMs = Math.min(firstRetryMs * 2 ** (count - 1), maxRetryMs);
      // Half of it is random, so that many senders don't retry at the same time.
      await pause(Math.max(waitMs * (0.5 + random() / 2), attempt.askedMs ?? 0));
    }
  }

  /** @param onStart gets a way to abort the attempt */
  async function tryOnce({ id, body }: Alert, onStart: (abort: () => void) => void): Promise<Attempt> {
    const controller = new AbortController();
    const timer = setTimeout(() => {
      controller.abort(new Error("timeout"));
    }, settings.timeoutMs);
    onStart(() => {
      controller.abort(new Error("closed"));
    });
    try {
      const key = secretBytes(settings.secret) ?? Buffer.alloc(0);
      const now = clock.now();
      const headers = {
        ...standardHeaders(key, id, body, now),
        "content-type": "application/json",
        "user-agent": "deepseek-proxy",
        "x-signature": webhookSignature(settings.secret, body, now),
      };
      const answer = await post.send(body, headers, controller.signal);
      const { status } = answer;
      const retry = status >= 500 || retryStatuses.has(status);
      const askedMs = readRetryAfter(answer.headers, clock.now());
      return { result: status, delivered: status >= 200 && status < 300, retry, askedMs };
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
      if (!isWanted(event)) return;
      if (closing || queue.length >= settings.maxQueued) {
        dropped[closing ? "closed" : "queue_full"] += 1;
        return;
      }
      const id = envelopes.idOf(event);
      queue.push({ id, body: JSON.stringify({ id, at: new Date(event.at).toISOString(), ...eventFacts(event) }) });
      running ??= sendAll();
    },
    async test() {
      const id = newId();
      const body = JSON.stringify({ id, at: new Date(clock.now()).toISOString(), event: "alerts.test" });
      const attempt = await tryOnce({ id, body }, () => undefined);
      return { delivered: attempt.delivered, result: attempt.result };
    },
    stats: () => ({ queued: queue.length, delivered, dropped: { ...dropped } }),
    configure(next) {
      const isElsewhere = next.url !== settings.url || next.allowPrivate !== settings.allowPrivate;
      settings = next;
      isWanted = createFilter(next);
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

function createFilter({ events, users, groups, providers }: WebhookSettings): (event: ProxyEvent) => boolean {
  const types = new Set(events);
  const isUser = createAllowList(users);
  const isGroup = createAllowList(groups);
  const isProvider = createAllowList(providers);
  return (event) =>
    types.has(event.type) &&
    (!("user" in event) || event.user === null || event.user === "" || isUser(event.user)) &&
    (!("group" in event) || event.group === "" || isGroup(event.group)) &&
    (!("provider" in event) || event.provider === "" || isProvider(event.provider));
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
  if (secretBytes(secret) === null)
    throw new Error(`${variable}: expected Base64 after whsec_, or a secret that doesn't begin with it`);
  return {
    url,
    secret,
    events: alerts.events,
    users: alerts.users,
    groups: alerts.groups,
    providers: alerts.providers,
    allowPrivate: alerts.allow_private,
    timeoutMs: alerts.timeout_seconds * 1000,
    maxAttempts: alerts.max_attempts,
    maxQueued: alerts.max_queued,
  };
}
