import type { FastifyInstance, FastifyRequest } from "fastify";
import { timingSafeEqual } from "node:crypto";
import { AppError } from "../../errors.ts";
import type { IpList } from "../../lib/ip-list.ts";

/** One thing that must work. Facts must hold nothing secret; they are shown to allowed addresses only. */
export interface HealthCheck {
  readonly name: string;
  check(): Promise<HealthResult> | HealthResult;
}

interface HealthResult {
  readonly ok: boolean;
  readonly facts?: Readonly<Record<string, unknown>>;
}

interface OpsOptions {
  readonly checks: readonly HealthCheck[];
  readonly metrics: { text(): Promise<string>; readonly contentType: string };
  /** Addresses that may see metrics and the details of health. */
  readonly allow: IpList;
  /** A bearer token that may see metrics from anywhere; undefined: none. */
  readonly metricsToken: string | undefined;
}

/** /livez: the process runs. /healthz: it can do its work (503 where not). /metrics: figures for Prometheus. */
export function registerOpsRoutes(app: FastifyInstance, options: OpsOptions): void {
  const open = { config: { access: "public" as const } };

  app.get("/livez", { ...open, schema: { summary: "Whether the process runs", tags: ["operations"] } }, () => ({
    status: "ok",
  }));

  app.get(
    "/healthz",
    { ...open, schema: { summary: "Whether it can do its work", tags: ["operations"] } },
    async (request, reply) => {
      const results = await Promise.all(options.checks.map(async (one) => [one.name, await run(one)] as const));
      const ok = results.every(([, result]) => result.ok);
      reply.code(ok ? 200 : 503);
      const status = ok ? "ok" : "failing";
      if (!options.allow.has(request.ip)) return { status };
      return { status, checks: Object.fromEntries(results.map(([name, { ok, facts }]) => [name, { ok, ...facts }])) };
    },
  );

  app.get(
    "/metrics",
    { ...open, schema: { summary: "Prometheus metrics", tags: ["operations"] } },
    async (request, reply) => {
      if (!options.allow.has(request.ip) && !hasToken(request, options.metricsToken)) {
        throw new AppError("address_not_allowed");
      }
      reply.type(options.metrics.contentType);
      return options.metrics.text();
    },
  );
}

async function run(one: HealthCheck): Promise<HealthResult> {
  try {
    return await one.check();
  } catch (error) {
    return { ok: false, facts: { reason: error instanceof Error ? error.message : String(error) } };
  }
}

function hasToken(request: FastifyRequest, token: string | undefined): boolean {
  if (token === undefined || token === "") return false;
  const given = Buffer.from(request.headers.authorization ?? "");
  const expected = Buffer.from(`Bearer ${token}`);
  return given.length === expected.length && timingSafeEqual(given, expected);
}
