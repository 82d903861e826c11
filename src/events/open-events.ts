import { randomFillSync } from "node:crypto";
import { join } from "node:path";
import type { Config } from "../config/schema.ts";
import type { Clock } from "../lib/clock.ts";
import type { Closer } from "../lib/close-all.ts";
import { createUuid7 } from "../lib/uuid7.ts";
import { type ActiveUsers, createActiveUsers } from "./active-users.ts";
import { type AuditLog, type AuditReader, createAuditLog, createAuditReader } from "./log-files/audit-log.ts";
import { type BehaviourLog, type BehaviourLogOptions, createBehaviourLog } from "./log-files/behaviour-log.ts";
import { createLogCompressor } from "./log-files/log-compressor.ts";
import {
  allRequests,
  type BehaviourReader,
  createBehaviourReader,
  createRequestReader,
  type RequestReader,
} from "./log-files/log-pages.ts";
import { type Bus, createBus } from "./bus.ts";
import { createEnvelopes, type Envelopes } from "./envelope.ts";
import { createEventFeed, type EventFeed } from "./event-feed.ts";
import { type Forwarding, openForwarders } from "./forwarders/open-forwarders.ts";
import { createLogSink } from "./log-sink.ts";
import type { Logger } from "./logger.ts";
import { createLossWatch } from "./loss-watch.ts";
import { createMinuteSeries, type MinuteSeries } from "./minute-series.ts";
import { createDeadLetters } from "./webhook/dead-letters.ts";
import { createLiveWebhook } from "./webhook/live-webhook.ts";
import { type AlertTest, webhookSettings, type Webhook } from "./webhook/webhook.ts";

/** What a sink has in its queue and has lost. */
export interface SinkCounts {
  readonly name: string;
  readonly queued: number;
  /** By reason. */
  readonly dropped: Readonly<Record<string, number>>;
}

/** The event bus and its sinks. */
export interface Events extends Pick<Forwarding, "forwarders" | "spoolBytes"> {
  readonly bus: Bus;
  readonly envelopes: Envelopes;
  /** The trace-ids of the requests that are running, by their X-Request-ID; those without a trace are not in it. */
  readonly runningTraces: Map<string, string>;
  readonly eventFeed: EventFeed;
  readonly behaviourLog: BehaviourLog;
  readonly behaviour: BehaviourReader;
  /** The requests of all users, a second time: one list over 10,000 users' files could not be read. */
  readonly requestLog: BehaviourLog;
  readonly requestReader: RequestReader;
  readonly activeUsers: ActiveUsers;
  readonly minuteSeries: MinuteSeries;
  readonly auditLog: AuditLog;
  readonly auditReader: AuditReader;
  /** What sinks have in their queues and have lost, by name. Those of the forwarders are in `forwarders`. */
  readonly sinks: () => readonly SinkCounts[];
  /** Counts of the webhook; undefined if none has been configured. */
  readonly alertStats: () => ReturnType<Webhook["stats"]> | undefined;
  /** Sends a test alert; null if no webhook is configured. */
  readonly testAlert: () => Promise<AlertTest> | null;
  /** Emits `events.lost` for each sink that has lost events since the last time. Runs by itself once a minute. */
  readonly reportLosses: () => void;
  /** Throws Error if alerts can't be sent as this config says. */
  readonly checkAlerts: (alerts: Config["alerts"]) => void;
  /** Uses the figures of another config from now on. Throws as checkAlerts. */
  readonly configureEvents: (config: Pick<Config, "logs" | "alerts">) => void;
}

export interface EventsOptions {
  readonly config: Pick<Config, "logs" | "alerts" | "events">;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly logsDir: string;
  /** The name of this process. */
  readonly node: string;
  /** The local day of a time in ms, YYYY-MM-DD. */
  readonly dayOf: (at: number) => string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called for each resource to close, in the order of opening. */
  readonly onOpen: (close: Closer) => void;
}

/** How long a user counts as active after the last event, in ms. */
const activeMs = 300_000;
/** How long to retry alerts when the proxy stops, in ms. */
const lastAlertsMs = 5000;

/**
 * Creates the bus and subscribes its sinks; the metrics subscribe later. Rejects if the webhook has no secret, and as
 * openForwarders.
 */
export async function openEvents(options: EventsOptions): Promise<Events> {
  const { config, env, logsDir, node, dayOf, clock, log, onOpen } = options;
  let { logs } = config;
  const newEventId = createUuid7(() => clock.now(), randomFillSync);
  const bus = createBus({ log, clock });
  let { alerts: alertRules } = config;
  const deadLetters = createDeadLetters({
    file: join(logsDir, "alerts-undelivered.jsonl"),
    maxBytes: () => alertRules.dead_letter_bytes,
    log,
  });
  const runningTraces = new Map<string, string>();
  const envelopes = createEnvelopes({ node, newId: newEventId, runningTraces });
  const settingsOf = (alerts: Config["alerts"]) => webhookSettings(alerts, env[alerts.secret_env]);
  const webhookParts = { envelopes, newId: newEventId, deadLetters, clock, log, random: Math.random };
  const webhook = createLiveWebhook(webhookParts, lastAlertsMs);
  webhook.configure(settingsOf(config.alerts));
  onOpen(() => webhook.close());
  const compressor = createLogCompressor();
  const openLog = (more: Pick<BehaviourLogOptions, "logsDir" | "folderOf">) =>
    createBehaviourLog({
      ...more,
      flushMs: logs.flush_ms,
      maxQueued: logs.max_queued,
      maxFileBytes: logs.max_file_bytes,
      get keepDays() {
        return logs.keep_days;
      },
      get maxTotalBytes() {
        return logs.max_total_bytes;
      },
      get compressAfterDays() {
        return logs.compress_after_days;
      },
      compressor,
      get auditKeepDays() {
        return logs.audit_keep_days;
      },
      dayOf,
      envelopes,
      clock,
      log,
    });
  const behaviourLog = openLog({ logsDir });
  onOpen(() => behaviourLog.close());
  const eventFeed = createEventFeed({ size: config.events.ring_size, envelopes, clock, newId: newEventId });
  const requestsDir = join(logsDir, "requests");
  const requestLog = openLog({
    logsDir: requestsDir,
    folderOf: ({ type }) => (type === "chat.finished" ? allRequests : null),
  });
  onOpen(() => requestLog.close());
  onOpen(() => {
    compressor.close();
  });
  const minuteSeries = createMinuteSeries(clock);
  const forwarding = await openForwarders({ config, env, logsDir, envelopes, clock, log });
  onOpen(() => forwarding.close());
  const activeUsers = createActiveUsers({ clock, windowMs: activeMs });
  bus.subscribe("behaviour_log", behaviourLog.sink);
  bus.subscribe("request_log", requestLog.sink);
  bus.subscribe("minute_series", minuteSeries.sink);
  bus.subscribe("log", createLogSink(log, envelopes));
  bus.subscribe("webhook", (event) => {
    if (event.type !== "events.lost" || event.sink !== "webhook") webhook.sink(event);
  });
  bus.subscribe("active_users", activeUsers.sink);
  bus.subscribe("feed", eventFeed.sink);
  if (forwarding.sink !== undefined) bus.subscribe("spool", forwarding.sink);
  const lossWatch = createLossWatch({
    losses: () => [
      { sink: "behaviour_log", lost: behaviourLog.health().dropped },
      { sink: "request_log", lost: requestLog.health().dropped },
      { sink: "webhook", lost: { ...webhook.stats()?.dropped, dead_letter: deadLetters.lost() } },
      ...forwarding.forwarders(),
    ],
    emit: bus.emit,
    clock,
  });
  onOpen(() => {
    lossWatch.close();
  });
  return {
    bus,
    forwarders: () => forwarding.forwarders(),
    spoolBytes: () => forwarding.spoolBytes(),
    envelopes,
    runningTraces,
    eventFeed,
    behaviourLog,
    behaviour: createBehaviourReader({ logsDir, log }),
    requestLog,
    requestReader: createRequestReader(requestsDir, log),
    activeUsers,
    minuteSeries,
    auditLog: createAuditLog({ logsDir, dayOf }),
    auditReader: createAuditReader({ logsDir, log }),
    sinks() {
      const [lines, requests, alerts] = [behaviourLog.health(), requestLog.health(), webhook.stats()];
      return [
        { name: "behaviour_log", queued: lines.queued, dropped: lines.dropped },
        { name: "request_log", queued: requests.queued, dropped: requests.dropped },
        { name: "feed", queued: 0, dropped: { slow_reader: eventFeed.stats().dropped } },
        {
          name: "webhook",
          queued: alerts?.queued ?? 0,
          dropped: { ...alerts?.dropped, dead_letter: deadLetters.lost() },
        },
      ];
    },
    alertStats: () => webhook.stats(),
    testAlert: () => webhook.test(),
    reportLosses: () => {
      lossWatch.check();
    },
    checkAlerts(alerts) {
      settingsOf(alerts);
    },
    configureEvents(next) {
      logs = next.logs;
      log.setLevel(logs.level);
      alertRules = next.alerts;
      webhook.configure(settingsOf(next.alerts));
    },
  };
}
