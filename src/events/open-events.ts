import type { Config } from "../config/schema.ts";
import type { Clock } from "../lib/clock.ts";
import type { Closer } from "../lib/close-all.ts";
import { type ActiveUsers, createActiveUsers } from "./active-users.ts";
import { type AuditLog, type AuditReader, createAuditLog, createAuditReader } from "./log-files/audit-log.ts";
import { type BehaviourLog, createBehaviourLog } from "./log-files/behaviour-log.ts";
import { type BehaviourReader, createBehaviourReader } from "./log-files/log-pages.ts";
import { type Bus, createBus } from "./bus.ts";
import { createEventText } from "./event-facts.ts";
import { createLogSink } from "./log-sink.ts";
import type { Logger } from "./logger.ts";
import { openWebhook, type Webhook } from "./webhook/webhook.ts";

/** The event bus and its sinks. */
export interface Events {
  readonly bus: Bus;
  readonly behaviourLog: BehaviourLog;
  readonly behaviour: BehaviourReader;
  readonly activeUsers: ActiveUsers;
  readonly auditLog: AuditLog;
  readonly auditReader: AuditReader;
  /** null if none is configured. */
  readonly webhook: Webhook | null;
}

export interface EventsOptions {
  readonly config: Pick<Config, "logs" | "alerts">;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly logsDir: string;
  /** The local day of a time in ms, YYYY-MM-DD. */
  readonly dayOf: (at: number) => string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly newId: () => string;
  /** Called for each resource to close, in the order of opening. */
  readonly onOpen: (close: Closer) => void;
}

/** How long a user counts as active after the last event, in ms. */
const activeMs = 300_000;
/** How long to retry alerts when the proxy stops, in ms. */
const lastAlertsMs = 5000;

/** Creates the bus and subscribes its sinks; the metrics subscribe later. Throws if the webhook has no secret. */
export function openEvents(options: EventsOptions): Events {
  const { config, env, logsDir, dayOf, clock, log, newId, onOpen } = options;
  const { logs, alerts } = config;
  const bus = createBus({ log, clock });
  const webhook = openWebhook(alerts, { secret: env[alerts.secret_env], clock, log, newId });
  if (webhook !== null) onOpen(() => webhook.close(lastAlertsMs));
  const textOf = createEventText();
  const behaviourLog = createBehaviourLog({
    logsDir,
    flushMs: logs.flush_ms,
    maxQueued: logs.max_queued,
    maxFileBytes: logs.max_file_bytes,
    keepDays: logs.keep_days,
    auditKeepDays: logs.audit_keep_days,
    dayOf,
    textOf,
    clock,
    log,
  });
  onOpen(() => behaviourLog.close());
  const activeUsers = createActiveUsers({ clock, windowMs: activeMs });
  bus.subscribe("behaviour_log", behaviourLog.sink);
  bus.subscribe("log", createLogSink(log, textOf));
  if (webhook !== null) bus.subscribe("webhook", webhook.sink);
  bus.subscribe("active_users", activeUsers.sink);
  return {
    bus,
    behaviourLog,
    behaviour: createBehaviourReader({ logsDir }),
    activeUsers,
    auditLog: createAuditLog({ logsDir, dayOf }),
    auditReader: createAuditReader({ logsDir }),
    webhook,
  };
}
