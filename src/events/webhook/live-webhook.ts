import { createWebhook, type Webhook, type WebhookOptions, type WebhookSettings } from "./webhook.ts";

type Counts = ReturnType<Webhook["stats"]>;

/** The webhook of the config in force, which may come and go while the proxy runs. */
export interface LiveWebhook extends Pick<Webhook, "sink"> {
  /** Counts of all webhooks since the start; undefined while there has been none. */
  stats(): Counts | undefined;
  /** As that of a webhook; null if there is none. */
  test(): ReturnType<Webhook["test"]> | null;
  /** Sends as these settings say from now on. With null what waits is still sent, for a while. */
  configure(settings: WebhookSettings | null): void;
  /** As that of a webhook. Also waits for those that were taken out of the config. */
  close(): Promise<void>;
}

/**
 * @param parts what a webhook needs beside its settings
 * @param deadlineMs how long what waits is still sent once a webhook ends
 */
export function createLiveWebhook(parts: Omit<WebhookOptions, keyof WebhookSettings>, deadlineMs: number): LiveWebhook {
  let current: Webhook | null = null;
  /** Those that send what waits for the last time. */
  const leaving = new Map<Webhook, Promise<void>>();
  /** What those have counted that are at their end. */
  let gone: Counts | undefined;

  function leave(webhook: Webhook): void {
    const left = webhook.close(deadlineMs).finally(() => {
      leaving.delete(webhook);
      gone = sumOf([gone, webhook.stats()]);
    });
    leaving.set(webhook, left);
  }

  return {
    sink(event) {
      current?.sink(event);
    },
    stats: () => sumOf([gone, ...[...leaving.keys()].map((one) => one.stats()), current?.stats()]),
    test: () => current?.test() ?? null,
    configure(settings) {
      if (settings === null) {
        if (current !== null) leave(current);
        current = null;
      } else if (current === null) current = createWebhook({ ...settings, ...parts });
      else current.configure(settings);
    },
    async close() {
      if (current !== null) leave(current);
      current = null;
      await Promise.all(leaving.values());
    },
  };
}

function sumOf(all: readonly (Counts | undefined)[]): Counts | undefined {
  const counts = all.filter((one) => one !== undefined);
  if (counts.length === 0) return undefined;
  const sum = (of: (one: Counts) => number): number => counts.reduce((total, one) => total + of(one), 0);
  return {
    queued: sum((one) => one.queued),
    delivered: sum((one) => one.delivered),
    dropped: {
      queue_full: sum(({ dropped }) => dropped.queue_full),
      undelivered: sum(({ dropped }) => dropped.undelivered),
      closed: sum(({ dropped }) => dropped.closed),
    },
  };
}
