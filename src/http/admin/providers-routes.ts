import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ProviderOperations } from "../../admin/provider-operations.ts";
import type { ProviderView } from "../../providers/provider-admin.ts";
import type { Latencies } from "../../providers/provider-health.ts";
import { errorSchema } from "../schemas/errors.ts";
import { actorOfRequest, isoTime } from "./admin-request.ts";

const probeResponse = z.object({
  at: z.iso.datetime(),
  ok: z.boolean().describe("Whether the provider responded and accepted the key."),
  reason: z.string().nullable(),
  balance: z
    .object({
      available: z.boolean(),
      amounts: z.array(z.object({ currency: z.string(), total: z.string().describe("As the provider reports it.") })),
    })
    .nullable()
    .describe("null if the provider doesn't report it."),
});

const circuitState = z.enum(["closed", "open", "half_open"]);

const providerResponse = z.object({
  name: z.string(),
  kind: z.string(),
  state: z.enum(["up", "down", "drained"]).describe("`up` if at least one key can take requests now."),
  in_flight: z.int(),
  cap: z.int().nullable().describe("Most requests at once, as it is now; null if there is no cap."),
  asked: z.int().describe("Requests since the start."),
  failed: z.int().describe("How many of them failed."),
  retries: z.int().describe("How many of them were retries."),
  error_rate: z.number().nullable().describe("Share of failures among the latest requests; null if there are none."),
  first_event_ms: z
    .object({ p50: z.number(), p90: z.number(), p99: z.number() })
    .nullable()
    .describe("Of the latest requests."),
  keys: z.array(
    z.object({
      key: z.int().describe("Its position among the provider's keys, from 0."),
      breaker: circuitState.describe("The circuit of the account: failed connections, and a rejected key."),
      limited_for_ms: z.number().describe("How long the provider takes no requests for any model."),
      circuits: z
        .array(z.object({ model: z.string(), breaker: circuitState, limited_for_ms: z.number() }))
        .describe("The models whose circuit isn't closed or that are rate limited; at most 100."),
      in_flight: z.int(),
      probe: probeResponse.nullable().describe("The latest one; null before the first."),
    }),
  ),
});

const providerParams = z.object({ name: z.string().describe("The provider's name in config.toml.") });
const reasonBody = z.strictObject({ reason: z.string().trim().max(500).optional() }).nullish();

/** Provider status; drain and restore. */
export function registerProviderRoutes(app: FastifyInstance, providers: ProviderOperations): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];
  const schemaOf = (summary: string) => ({
    config,
    schema: {
      summary,
      tags,
      params: providerParams,
      body: reasonBody,
      response: { 200: providerResponse, 400: errorSchema, 404: errorSchema },
    },
  });

  routes.get(
    "/admin/providers",
    {
      config,
      schema: {
        summary: "Status of the providers",
        tags,
        response: { 200: z.object({ providers: z.array(providerResponse) }) },
      },
    },
    () => ({ providers: providers.list().map(toResponse) }),
  );

  routes.post("/admin/providers/:name/drain", schemaOf("Take a provider out of service"), async (request) => {
    const { params, body } = request;
    return toResponse(await providers.drain(actorOfRequest(request), params.name, body?.reason ?? ""));
  });

  routes.post("/admin/providers/:name/restore", schemaOf("Put a provider back into service"), async (request) => {
    const { params, body } = request;
    return toResponse(await providers.restore(actorOfRequest(request), params.name, body?.reason ?? ""));
  });
}

function toResponse({
  inFlight,
  errorRate,
  firstEventMs,
  keys,
  ...view
}: ProviderView): z.input<typeof providerResponse> {
  return {
    ...view,
    in_flight: inFlight,
    error_rate: errorRate,
    first_event_ms: firstEventMs === null ? null : toTenths(firstEventMs),
    keys: keys.map(({ key, breaker, limitedForMs, circuits, inFlight: running, probe }) => ({
      key,
      breaker,
      limited_for_ms: limitedForMs,
      circuits: circuits.map(({ model, breaker: state, limitedForMs: ms }) => ({
        model,
        breaker: state,
        limited_for_ms: ms,
      })),
      in_flight: running,
      probe: probe === null ? null : { ...probe, at: isoTime(probe.at), balance: toBalance(probe.balance) },
    })),
  };
}

function toTenths({ p50, p90, p99 }: Latencies): Latencies {
  const tenths = (ms: number): number => Math.round(ms * 10) / 10;
  return { p50: tenths(p50), p90: tenths(p90), p99: tenths(p99) };
}

type Probe = NonNullable<ProviderView["keys"][number]["probe"]>;

function toBalance(balance: Probe["balance"]): z.input<typeof probeResponse>["balance"] {
  return balance === null ? null : { ...balance, amounts: balance.amounts.map((amount) => ({ ...amount })) };
}
