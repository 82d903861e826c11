import type { IntervalHistogram } from "node:perf_hooks";
import type { Users } from "../identity/users.ts";
import type { Groups } from "../identity/groups.ts";
import type { ApiKeys } from "../identity/api-keys.ts";
import type { Sessions } from "../identity/sessions.ts";
import type { KeyFileStatus } from "../config/key-file-status.ts";
import type { Reloader } from "../config/reload.ts";
import type { AuditLog } from "../events/log-files/audit-log.ts";
import type { BehaviourLog } from "../events/log-files/behaviour-log.ts";
import type { DiskProbe } from "../lib/files/disk-probe.ts";
import type { Ledger } from "../quota/ledger.ts";
import type { AllowanceStats } from "../quota/redis/allowance.ts";
import type { Overload } from "../limits/overload.ts";
import type { ModelList } from "../providers/model-list.ts";
import type { HealthCheck } from "./routes/ops.ts";

interface Parts {
  readonly ledger: Ledger;
  readonly behaviourLog: BehaviourLog;
  readonly requestLog: BehaviourLog;
  readonly forwarders: () => readonly object[];
  readonly auditLog: AuditLog;
  readonly users: Pick<Users, "names" | "problems">;
  readonly sessions: Pick<Sessions, "problems">;
  readonly apiKeys: Pick<ApiKeys, "problems">;
  readonly groups: Pick<Groups, "problems">;
  readonly models: ModelList;
  readonly eventLoop: IntervalHistogram;
  /** Checks the disk of the state folder. */
  readonly disk: DiskProbe;
  readonly overload: Pick<Overload, "level" | "reason">;
  readonly reloader: Pick<Reloader, "status">;
  readonly keyFileStatus: Pick<KeyFileStatus, "problems">;
  /** Where the state is; undefined: in files. */
  readonly redis: { status(): { readonly connected: boolean } } | undefined;
  /** How requests are served without it; undefined: not at all. */
  readonly allowance: { isServing(): boolean; stats(): AllowanceStats } | undefined;
  /** What has become of spans; undefined: nothing is traced. */
  readonly spans: (() => object) | undefined;
}

/** Mean event-loop delay, in ms, above which the process counts as unhealthy. */
const maxLoopDelayMs = 500;

/** The checks of /healthz. */
export function createHealthChecks(parts: Parts): readonly HealthCheck[] {
  const { ledger, behaviourLog, forwarders, users, models, eventLoop, redis, allowance, spans } = parts;
  return [
    ...(redis === undefined
      ? []
      : [
          {
            name: "redis",
            immediate: true,
            check() {
              const { connected } = redis.status();
              const serves = allowance?.isServing() === true;
              const facts =
                allowance === undefined ? {} : { facts: { connected, allowance: allowance.stats(), serves } };
              return { ok: connected || serves, ...facts };
            },
          },
        ]),
    // A collector that is away harms no request.
    ...(spans === undefined ? [] : [{ name: "traces", check: () => ({ ok: true, facts: { spans: spans() } }) }]),
    {
      name: "journal",
      async check() {
        const { ok, reason } = await ledger.health();
        return { ok, ...(reason === undefined ? {} : { facts: { reason } }) };
      },
    },
    {
      name: "behaviour_log",
      check() {
        const { alive, lastError, queued, dropped } = behaviourLog.health();
        return { ok: alive && lastError === null, facts: { last_error: lastError, queued, dropped } };
      },
    },
    {
      name: "request_log",
      check() {
        const { alive, lastError, queued, dropped } = parts.requestLog.health();
        return { ok: alive && lastError === null, facts: { last_error: lastError, queued, dropped } };
      },
    },
    // What takes events may be away for long: they wait in the spool.
    ...(forwarders().length === 0
      ? []
      : [{ name: "forwarders", check: () => ({ ok: true, facts: { forwarders: forwarders() } }) }]),
    {
      // The caller of a failed change got an error. The proxy still counts as healthy: the next change may be weeks
      // away.
      name: "audit_log",
      check: () => ({ ok: true, facts: { last_error: parts.auditLog.health().lastError } }),
    },
    {
      name: "disk",
      async check() {
        await parts.disk.check();
        return { ok: true };
      },
    },
    {
      // A broken user file is for the operator to fix. All other users are served, so the proxy still counts as
      // healthy.
      name: "accounts",
      async check() {
        const problems = await Promise.all([
          users.problems(),
          parts.sessions.problems(),
          parts.apiKeys.problems(),
          parts.groups.problems(),
          ledger.problems(),
        ]);
        return { ok: true, facts: { accounts: (await users.names()).length, problems: problems.flat() } };
      },
    },
    {
      // The config in force works, whatever has become of the file.
      name: "config",
      immediate: true,
      check() {
        const { loadedAt, invalid, restartNeeded } = parts.reloader.status();
        const facts = { valid: invalid === null, loaded_at: iso(loadedAt), restart_needed: restartNeeded };
        const problem = invalid === null ? {} : { invalid_since: iso(invalid.since), error: invalid.error };
        const keyFiles = parts.keyFileStatus.problems().map((one) => ({ ...one, since: iso(one.since) }));
        return { ok: true, facts: { ...facts, ...problem, ...(keyFiles.length === 0 ? {} : { key_files: keyFiles }) } };
      },
    },
    {
      name: "upstream",
      async check() {
        const providers = await models.reachability();
        return { ok: providers.some(({ ok }) => ok), facts: { providers } };
      },
    },
    {
      // A proxy that refuses some work is healthy: a restart would lose what runs.
      name: "overload",
      immediate: true,
      check: () => ({ ok: true, facts: { level: parts.overload.level(), reason: parts.overload.reason() } }),
    },
    {
      name: "event_loop",
      check() {
        const ms = eventLoop.mean / 1e6;
        eventLoop.reset();
        return { ok: !(ms > maxLoopDelayMs), facts: { mean_delay_ms: Number.isFinite(ms) ? Math.round(ms) : 0 } };
      },
    },
  ];
}

/**
 * Whether requests should be sent to this process. Not while no provider can be reached: no other process could reach
 * them either, and all of them would be taken out of service. Before the state is recovered it doesn't listen at all.
 */
export async function readinessOf(
  { ledger, redis, allowance }: Pick<Parts, "ledger" | "redis" | "allowance">,
  shuttingDown: boolean,
): Promise<{ readonly ready: boolean; readonly reason: string }> {
  if (shuttingDown) return { ready: false, reason: "it is shutting down" };
  if (redis?.status().connected === false && allowance?.isServing() !== true)
    return { ready: false, reason: "Redis, which has the state, is away" };
  const { ok, reason = "charges can't be recorded" } = await ledger.health();
  return { ready: ok, reason: ok ? "" : reason };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
