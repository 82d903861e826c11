import { AppError } from "../errors.ts";
import type { AlertTest } from "../events/webhook/webhook.ts";
import type { Actor, Audit } from "./audit.ts";

export interface AlertOperations {
  /** Sends a test alert to the webhook, once. Throws AppError `conflict` if none is configured. */
  test(actor: Actor): Promise<AlertTest>;
}

export interface AlertOperationsOptions {
  /** null if no webhook is configured. */
  readonly testAlert: () => Promise<AlertTest> | null;
  readonly audit: Audit;
}

/** Tests of the webhook. They are audited: each sends a request to somebody else's machine. */
export function createAlertOperations({ testAlert, audit }: AlertOperationsOptions): AlertOperations {
  return {
    async test(actor) {
      const result = await testAlert();
      if (result === null)
        throw new AppError("conflict", { message: "There is no webhook to test: set alerts.webhook_url." });
      await audit.record(actor, { action: "alerts.tested", user: null, before: null, after: { ...result } });
      return result;
    },
  };
}
