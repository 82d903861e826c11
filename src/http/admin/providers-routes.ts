import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ProviderOperations } from "../../admin/provider-operations.ts";
import { breakerStates } from "../../providers/breaker.ts";
import type { ProviderView } from "../../providers/provider-admin.ts";
import type { Latencies } from "../../providers/provider-health.ts";
import type { ProviderTest } from "../../providers/provider-test.ts";
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

const circuitState = z.enum(breakerStates);

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

const testBody = z
  .strictObject({
    model: z
      .string()
      .min(1)
      .max(200)
      .optional()
      .describe("As clients or the provider name it. Default: the first that is known."),
    account: z.int().min(0).max(1000).optional().describe("Which key: its position among the provider's keys, from 0."),
  })
  .nullish();

const testResponse = z.object({
  ok: z.boolean().describe("Whether a complete answer came."),
  provider: z.string(),
  account: z.int(),
  model: z.string().describe("The provider's name for it."),
  status: z.int().nullable().describe("The provider's HTTP status; null: no response came."),
  headers_ms: z.number().nullable().describe("Until the headers of the response came."),
  first_token_ms: z.number().nullable().describe("Until the first event came."),
  total_ms: z.number(),
  usage: z
    .object({ input_tokens: z.int(), cached_tokens: z.int(), output_tokens: z.int(), reasoning_tokens: z.int() })
    .nullable()
    .describe("As the provider reports it; null if it doesn't. Nobody here is charged for it."),
  error: z
    .object({
      kind: z.string().describe("key_refused, no_balance, model_unknown, timeout, network, ..."),
      code: z.string().describe("The provider's own code, or nothing."),
      message: z.string().describe("The provider's words, without secrets."),
    })
    .nullable(),
});

/** Provider status; drain, restore and test. */
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

  routes.post(
    "/admin/providers/:name/test",
    {
      config,
      schema: {
        summary: "Test a provider by one small chat",
        description:
          "Sends a real chat of one token with the provider's key, also while it is out of service. It is charged to nobody, and changes no circuit. It takes 20 seconds at most.",
        tags,
        params: providerParams,
        body: testBody,
        response: { 200: testResponse, 400: errorSchema, 404: errorSchema, 409: errorSchema },
      },
    },
    async (request, reply) => {
      const { params, body } = request;
      const wanted = { model: body?.model, account: body?.account };
      const result = await providers.test(actorOfRequest(request), params.name, wanted);
      reply.header("cache-control", "no-store");
      return toTestResponse(params.name, result);
    },
  );
}

function toTestResponse(provider: string, test: ProviderTest): z.input<typeof testResponse> {
  const { ok, key, model, status, headersMs, firstTokenMs, totalMs, usage, error } = test;
  const tenths = (ms: number | null): number | null => (ms === null ? null : Math.round(ms * 10) / 10);
  return {
    ok,
    provider,
    account: key,
    model,
    status,
    headers_ms: tenths(headersMs),
    first_token_ms: tenths(firstTokenMs),
    total_ms: tenths(totalMs) ?? 0,
    usage:
      usage === null
        ? null
        : {
            input_tokens: usage.input,
            cached_tokens: usage.cached,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
          },
    error,
  };
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
