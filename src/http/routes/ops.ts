import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { timingSafeEqual } from "node:crypto";
import { z } from "zod";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { IpList } from "../../lib/ip-list.ts";

/** A component that must work. Its facts must contain no secrets; they are shown to allowed addresses only. */
export interface HealthCheck {
  readonly name: string;
  /** Whether it costs nothing and must take effect at once: then its result is not cached. */
  readonly immediate?: boolean;
  check(): Promise<HealthResult> | HealthResult;
}

interface HealthResult {
  readonly ok: boolean;
  readonly facts?: Readonly<Record<string, unknown>>;
}

/** Whether new requests should be sent here: not whether every part is well, as /healthz says. */
interface Readiness {
  readonly ready: boolean;
  /** Why not; "" if it is. Shown to allowed addresses only. */
  readonly reason: string;
}

interface OpsOptions {
  /** Asked for each call, so it must cost nothing. */
  readonly readiness: () => Readiness | Promise<Readiness>;
  readonly checks: readonly HealthCheck[];
  /** The metrics in the format that an Accept header asks for. */
  readonly metrics: {
    scrape(accept: string | undefined): Promise<{ readonly contentType: string; readonly text: string }>;
  };
  /** Who may see metrics and health details now. */
  readonly access: () => {
    readonly metricsAddresses: IpList;
    /** A bearer token that may read metrics from anywhere; undefined: none. */
    readonly metricsToken: string | undefined;
  };
  readonly clock: Clock;
}

/** How long the results of all checks are cached, and the timeout of one check; ms. */
const freshMs = 1000;
const longestMs = 800;

interface Results {
  readonly results: readonly (readonly [name: string, result: HealthResult])[];
  /** By component; null: not since the start. */
  readonly lastSuccessSecondsAgo: Readonly<Record<string, number | null>>;
}

/**
 * Runs all checks at most once a second, however many requests come: anyone may call, and a probe gives up after a
 * second. It also knows how long ago each component last worked.
 */
function createRecentResults(checks: readonly HealthCheck[], clock: Clock): () => Promise<Results> {
  /** Monotonic ms, by component. */
  const workedAt = new Map<string, number>();
  const runOne = async (one: HealthCheck) => {
    const result = await run(one);
    if (result.ok) workedAt.set(one.name, clock.monotonic());
    return [one.name, result] as const;
  };
  const immediate = checks.filter((one) => one.immediate === true);
  const others = checks.filter((one) => one.immediate !== true);
  let last: { readonly at: number; readonly results: Promise<Results["results"]> } | null = null;
  return async () => {
    const now = clock.monotonic();
    if (last === null || now - last.at >= freshMs) last = { at: now, results: Promise.all(others.map(runOne)) };
    const results = [...(await last.results), ...(await Promise.all(immediate.map(runOne)))];
    const ages = results.map(([name]) => {
      const since = workedAt.get(name);
      return [name, since === undefined ? null : Math.round((clock.monotonic() - since) / 100) / 10] as const;
    });
    return { results, lastSuccessSecondsAgo: Object.fromEntries(ages) };
  };
}

const tags = ["operations"];
const statusOnly = z.object({ status: z.string() });
const reason = z.string().describe("For addresses of `metrics.allow` only.");
const healthResponse = statusOnly.extend({
  checks: z
    .record(z.string(), z.looseObject({ ok: z.boolean() }))
    .optional()
    .describe("By component; for addresses of `metrics.allow` only, as the next one is."),
  last_success_seconds_ago: z.record(z.string(), z.number().nullable()).optional(),
});

/**
 * /livez: the process runs. /readyz: requests should be sent to it (503 if not). /healthz: how each component is (503
 * if one that is needed fails). /metrics: metrics for Prometheus.
 */
export function registerOpsRoutes(app: FastifyInstance, options: OpsOptions): void {
  const open = { config: { access: "public" as const } };
  const recent = createRecentResults(options.checks, options.clock);

  app.get(
    "/livez",
    { ...open, schema: { summary: "Whether the process runs", tags, response: { 200: statusOnly } } },
    () => ({
      status: "ok",
    }),
  );

  app.get(
    "/readyz",
    {
      ...open,
      schema: {
        summary: "Whether requests should be sent to it",
        tags,
        response: { 200: statusOnly, 503: statusOnly.extend({ reason: reason.optional() }) },
      },
    },
    async (request, reply) => {
      const { ready, reason } = await options.readiness();
      answerWith(reply, ready);
      const status = ready ? "ok" : "not_ready";
      return ready || !options.access().metricsAddresses.has(request.ip) ? { status } : { status, reason };
    },
  );

  app.get(
    "/healthz",
    {
      ...open,
      schema: { summary: "Whether it can do its work", tags, response: { 200: healthResponse, 503: healthResponse } },
    },
    async (request, reply) => {
      const { results, lastSuccessSecondsAgo } = await recent();
      const ok = results.every(([, result]) => result.ok);
      answerWith(reply, ok);
      const status = ok ? "ok" : "failing";
      if (!options.access().metricsAddresses.has(request.ip)) return { status };
      const checks = Object.fromEntries(results.map(([name, { ok, facts }]) => [name, { ok, ...facts }]));
      return { status, checks, last_success_seconds_ago: lastSuccessSecondsAgo };
    },
  );

  app.get(
    "/metrics",
    {
      ...open,
      schema: {
        summary: "Prometheus metrics",
        tags,
        response: {
          200: {
            description: "Prometheus's text format, or OpenMetrics where `Accept` asks for it.",
            content: { "text/plain": { schema: z.string() }, "application/openmetrics-text": { schema: z.string() } },
          },
        },
      },
    },
    async (request, reply) => {
      const { metricsAddresses, metricsToken } = options.access();
      if (!metricsAddresses.has(request.ip) && !hasToken(request, metricsToken)) {
        throw new AppError("address_not_allowed");
      }
      const { contentType, text } = await options.metrics.scrape(request.headers.accept);
      reply.type(contentType).header("vary", "accept");
      return text;
    },
  );
}

/** Every 503 says when to try again; results are kept for a second. */
function answerWith(reply: FastifyReply, ok: boolean): void {
  reply.code(ok ? 200 : 503);
  if (!ok) reply.header("retry-after", Math.ceil(freshMs / 1000));
}

/** Never rejects. A check that hangs has failed: the caller would give up before it ends. */
async function run(one: HealthCheck): Promise<HealthResult> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<HealthResult>((resolve) => {
    timer = setTimeout(resolve, longestMs, { ok: false, facts: { reason: `no result within ${longestMs} ms` } });
  });
  try {
    return await Promise.race([one.check(), late]);
  } catch (error) {
    return { ok: false, facts: { reason: error instanceof Error ? error.message : String(error) } };
  } finally {
    clearTimeout(timer);
  }
}

function hasToken(request: FastifyRequest, token: string | undefined): boolean {
  const { authorization = "" } = request.headers;
  if (token === undefined || authorization.slice(0, 7).toLowerCase() !== "bearer ") return false;
  const given = Buffer.from(authorization.slice(7).trim());
  const expected = Buffer.from(token);
  return given.length === expected.length && timingSafeEqual(given, expected);
}
