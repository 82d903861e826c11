import type { Config } from "../../config/schema.ts";
import { createWebhook, type Webhook, type WebhookOptions } from "./webhook.ts";

const minSecretLength = 16;

/**
 * The webhook of [alerts]; null where none is configured.
 *
 * @throws Error where there is one, but no secret to sign with: better no start than alerts that nobody can trust
 */
export function openWebhook(
  alerts: Config["alerts"],
  options: Pick<WebhookOptions, "clock" | "log" | "newId"> & { readonly secret: string | undefined },
): Webhook | null {
  const { webhook_url: url, secret_env: variable } = alerts;
  if (url === undefined) return null;
  const { secret = "" } = options;
  if (secret.length < minSecretLength) {
    throw new Error(`alerts.webhook_url is set: set ${variable} to a secret of at least ${minSecretLength} characters`);
  }
  return createWebhook({
    ...options,
    url,
    secret,
    events: alerts.events,
    allowPrivate: alerts.allow_private,
    timeoutMs: alerts.timeout_seconds * 1000,
    maxAttempts: alerts.max_attempts,
    maxQueued: alerts.max_queued,
    random: Math.random,
  });
}
