import { z } from "zod";
import { modelGlob, plainModel, plainName, plainPath } from "./value-schemas.ts";

/** A duration in seconds in config.toml; fractions are allowed. */
const seconds = (max: number) => z.number().positive().max(max);
const count = (min: number, max: number) => z.int().min(min).max(max);

const variable = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "the name of an environment variable, which holds the key");

const forwardProxy = z
  .url({ protocol: /^https?$/ })
  .refine(isProxyUrl, "expected http://HOST:PORT, with NAME:PASSWORD@ before the host if it asks for them");

const timeoutFields = {
  connect_seconds: seconds(600).describe("TCP and TLS connection to the provider."),
  first_byte_seconds: seconds(3600).describe("From the request sent to the provider's response headers."),
  first_event_seconds: seconds(3600).describe("From the request sent to the first data event; comments don't count."),
  idle_seconds: seconds(3600).describe("Between two data events; comments don't count."),
  total_seconds: seconds(86400).describe(
    "The whole response, starting at the first attempt; paused while a client is slow to read.",
  ),
  stalled_reader_seconds: seconds(3600).describe("How long a client may stop reading before it is cut off."),
  heartbeat_seconds: seconds(3600).describe("Silence after which a client gets a `: keep-alive` comment."),
};

export const timeoutsSection = z.strictObject({
  connect_seconds: timeoutFields.connect_seconds.default(10),
  first_byte_seconds: timeoutFields.first_byte_seconds.default(60),
  first_event_seconds: timeoutFields.first_event_seconds.default(600),
  idle_seconds: timeoutFields.idle_seconds.default(120),
  total_seconds: timeoutFields.total_seconds.default(1800),
  stalled_reader_seconds: timeoutFields.stalled_reader_seconds.default(60),
  heartbeat_seconds: timeoutFields.heartbeat_seconds.default(15),
});

export const providerSection = z.strictObject({
  name: plainName.describe("Name in logs and metrics."),
  kind: z.enum(["deepseek", "zhipu", "openai", "simulator"]).describe("Kind of its API."),
  base_url: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe("Base URL; each kind except `openai` has a default."),
  forward_proxy_url: forwardProxy
    .optional()
    .describe(
      'HTTP proxy through which it is reached, by CONNECT: "http://HOST:PORT", or "http://NAME:PASSWORD@HOST:PORT".',
    ),
  api_key_env: variable.optional().describe("Environment variable of the key, or of several keys separated by commas."),
  api_keys_env: z
    .array(variable)
    .min(1)
    .optional()
    .describe("Environment variables of several keys, instead of api_key_env; each key is a separate account."),
  api_key_file: plainPath.optional().describe("File with the key; relative to this file."),
  models: z.array(modelGlob).min(1).describe('Models it serves; globs such as "deepseek-*".'),
  model_map: z
    .record(modelGlob, plainModel)
    .default({})
    .describe(
      "Names or globs, as in clients' requests and aliases -> this provider's own names; it serves these models too.",
    ),
  priority: count(0, 1000).default(0).describe("Lower is tried first."),
  weight: count(1, 1000).default(1).describe("Share among providers of the same priority."),
  stream_options: z
    .boolean()
    .default(true)
    .describe(
      "false omits `stream_options`, for a provider that rejects it; a provider's error about it has the same effect.",
    ),
  enabled: z.boolean().default(true).describe("false takes it out of rotation."),
  timeouts: z.strictObject(timeoutFields).partial().prefault({}).describe("Overrides [timeouts] for this provider."),
});

export const retrySection = z.strictObject({
  attempts: count(1, 10).default(3).describe("Attempts per request, over all providers; 1 disables retries."),
  base_ms: count(1, 60_000)
    .default(200)
    .describe(
      "Maximum pause before the second attempt; it doubles with each further one, and a random part of it is used.",
    ),
  max_ms: count(1, 600_000).default(5000).describe("Upper bound of the pause."),
  max_retry_after_seconds: z
    .number()
    .min(0)
    .max(600)
    .default(5)
    .describe(
      "Longest Retry-After of a provider to wait for; with a longer one it is taken out of rotation for that long.",
    ),
});

export const breakerSection = z.strictObject({
  failures: count(1, 10_000)
    .default(5)
    .describe(
      "Opens the circuit of a model at one provider after this many failures, if they are at least half of its responses and more than one user met them.",
    ),
  window_seconds: seconds(3600).default(30).describe("Window in which failures and successes are counted."),
  open_seconds: seconds(3600)
    .default(15)
    .describe(
      "How long an open circuit rejects requests. If no other provider serves the model, a share passes that grows to all of them in this time.",
    ),
});

export const healthSection = z.strictObject({
  probe_seconds: z
    .number()
    .min(0)
    .max(86_400)
    .default(30)
    .describe("How often each provider's balance or models are requested; 0 never."),
});

/** Whether it is nothing but the address of a proxy, with a name and a password that can be decoded. */
function isProxyUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { pathname, search, hash, username, password } = new URL(text);
  try {
    decodeURIComponent(username);
    decodeURIComponent(password);
  } catch {
    return false;
  }
  return pathname === "/" && search === "" && hash === "";
}

export type ProviderConfig = Readonly<z.infer<typeof providerSection>>;
export type TimeoutsConfig = Readonly<z.infer<typeof timeoutsSection>>;
export type BreakerConfig = Readonly<z.infer<typeof breakerSection>>;
