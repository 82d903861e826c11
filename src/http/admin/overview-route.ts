import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Reloader } from "../../config/reload.ts";
import type { ActiveUsers } from "../../events/active-users.ts";
import type { ForwarderStatus } from "../../events/forwarders/forwarder.ts";
import type { AuditLog } from "../../events/log-files/audit-log.ts";
import { type MinuteSeries, requestsOf } from "../../events/minute-series.ts";
import type { Clock } from "../../lib/clock.ts";
import type { LoginGuard } from "../../identity/login-guard.ts";
import type { Users } from "../../identity/users.ts";
import type { ConcurrencyLimiter } from "../../limits/concurrency.ts";
import type { Overload } from "../../limits/overload.ts";
import type { ProviderAdmin } from "../../providers/provider-admin.ts";
import type { Ledger } from "../../quota/ledger.ts";
import { isoTime } from "./admin-request.ts";

const count = z.int();
const tally = {
  ok: count,
  refused: count.describe("By the proxy, or by a provider as the client's fault."),
  failed: count.describe("The provider's fault, or the proxy's."),
  client_gone: count.describe("The client disconnected first."),
  tokens: count.describe("Charged."),
  cost: z.record(z.string(), z.number()).describe("nano-units by currency."),
};
const shares = z.array(z.object({ name: z.string(), requests: count, ...tally })).describe("Of the last hour.");

const overviewResponse = z.object({
  node: z.string().describe("The process that has answered: the figures are its own."),
  at: z.iso.datetime().describe("When the figures were taken: later events are not among them."),
  shared: z.boolean().describe("Whether other processes share the state; each has figures of its own."),
  minutes: z
    .array(
      z.object({
        at: z.iso.datetime().describe("When the minute began."),
        ...tally,
        first_token_p95_ms: z.number().nullable(),
      }),
    )
    .describe("Chats that ended within the last 60 minutes, the running one included, oldest first."),
  now: z.object({
    in_flight: count,
    waiting: count,
    active_users: count.describe("Within five minutes."),
    requests_per_minute: count.describe("Chats that ended in the last whole minute."),
  }),
  by_model: shares,
  by_provider: shares,
  attention: z
    .array(z.looseObject({ kind: z.string() }))
    .describe("What needs an operator; empty: nothing. Each has a kind and its facts."),
});

export interface OverviewOptions {
  readonly minuteSeries: MinuteSeries;
  readonly activeUsers: ActiveUsers;
  readonly gateway: { running(): number };
  readonly concurrency: Pick<ConcurrencyLimiter, "waiting">;
  readonly providerAdmin: Pick<ProviderAdmin, "list">;
  readonly loginGuard: Pick<LoginGuard, "locked">;
  readonly users: Pick<Users, "problems">;
  readonly ledger: Pick<Ledger, "health">;
  /** Where events go beside the logs. */
  readonly forwarders: () => readonly Pick<ForwarderStatus, "sink" | "lastError">[];
  readonly auditLog: Pick<AuditLog, "health">;
  readonly reloader: Pick<Reloader, "status">;
  readonly overload: Pick<Overload, "level" | "reason">;
  readonly clock: Clock;
  readonly node: string;
  readonly isShared: boolean;
  readonly isSimulated: () => boolean;
}

/** GET /admin/overview: the last hour by minute, what runs now, and what needs attention. */
export function registerOverviewRoute(app: FastifyInstance, options: OverviewOptions): void {
  const { minuteSeries, node, isShared } = options;
  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/overview",
    {
      config: { access: "admin" },
      schema: {
        summary: "The last hour by minute, what runs now, and what needs attention",
        tags: ["admin"],
        response: { 200: overviewResponse },
      },
    },
    async (_request, reply) => {
      reply.header("cache-control", "no-store");
      const at = isoTime(options.clock.now());
      const minutes = minuteSeries.minutes();
      const whole = minutes.at(-2);
      return {
        node,
        at,
        shared: isShared,
        minutes: minutes.map((minute) => ({ ...minute, at: isoTime(minute.at) })),
        now: {
          in_flight: options.gateway.running(),
          waiting: options.concurrency.waiting(),
          active_users: options.activeUsers.list().length,
          requests_per_minute: whole === undefined ? 0 : requestsOf(whole),
        },
        by_model: [...minuteSeries.byModel()],
        by_provider: [...minuteSeries.byProvider()],
        attention: [...(await attentionOf(options))],
      };
    },
  );
}

interface Attention {
  readonly kind: string;
  readonly [fact: string]: unknown;
}

/** The worst first. Each is one bounded look at what the process knows anyway. */
async function attentionOf(options: OverviewOptions): Promise<readonly Attention[]> {
  const found: Attention[] = [];
  const failing = (part: string, reason: string): void => {
    found.push({ kind: "failing", part, reason });
  };
  const { ok, reason = "charges can't be recorded" } = await options.ledger.health();
  if (!ok) failing("journal", reason);
  const { lastError } = options.auditLog.health();
  if (lastError !== null) failing("audit log", lastError);
  for (const forwarder of options.forwarders())
    if (forwarder.lastError !== null) failing(`events.${forwarder.sink}`, forwarder.lastError);
  const level = options.overload.level();
  if (level > 0) found.push({ kind: "overload", level, reason: options.overload.reason() });
  const { invalid, restartNeeded } = options.reloader.status();
  if (invalid !== null) found.push({ kind: "config_invalid", since: isoTime(invalid.since) });
  for (const { name: provider, state, keys } of options.providerAdmin.list()) {
    if (state !== "up") found.push({ kind: `provider_${state}`, provider });
    const models = new Set(keys.flatMap(({ circuits }) => circuits.map(({ model }) => model)));
    if (state === "up" && models.size > 0)
      found.push({ kind: "circuit_open", provider, models: [...models].slice(0, 20) });
  }
  const locked = await options.loginGuard.locked(100);
  if (locked.length > 0) found.push({ kind: "logins_locked", count: locked.length });
  const problems = await options.users.problems();
  if (problems.length > 0) found.push({ kind: "accounts_broken", count: problems.length });
  if (restartNeeded.length > 0) found.push({ kind: "config_restart_needed", paths: restartNeeded.slice(0, 20) });
  if (options.isSimulated()) found.push({ kind: "simulated" });
  return found;
}
