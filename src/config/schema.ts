import { z } from "zod";
import { logLevels } from "../lib/log.ts";
import { eventsSection } from "./events-schema.ts";
import { checkGroups, groupsSection } from "./groups-schema.ts";
import { checkPermits, concurrencySection } from "./concurrency-schema.ts";
import { checkOidc, oidcSection } from "./oidc-schema.ts";
import { overloadSection } from "./overload-schema.ts";
import { checkPriceDates, pricesSchema, weightsSchema } from "./pricing-schema.ts";
import { breakerSection, healthSection, providerSection, retrySection, timeoutsSection } from "./provider-schema.ts";
import { checkTierLimits, quotaSection } from "./quota-schema.ts";
import { rateRulesSection, checkRates } from "./rates-schema.ts";
import { riskSection } from "./risk-schema.ts";
import { accessSection, alertsSection, securitySection } from "./security-schema.ts";
import { modelGlob, network, plainModel, plainPath } from "./value-schemas.ts";
import { stateSection } from "./state-schema.ts";
import { telemetrySection } from "./telemetry-schema.ts";

/** A duration in seconds in config.toml; fractions are allowed. */
const seconds = (max: number) => z.number().positive().max(max);
const count = (min: number, max: number) => z.int().min(min).max(max);
const addresses = z.array(network);
const loopback = ["127.0.0.0/8", "::1/128"];

/** As browsers send it: no trailing slash. Desktop shells of chat apps have their own schemes. */
const origin = z
  .string()
  .regex(
    /^(\*|[a-z][a-z0-9+.-]*:\/\/[^\sA-Z/?#@]+)$/,
    "an origin such as https://app.example (lower case, no slash at its end)",
  );

/** An origin without a path: the paths of links are ours. */
const publicUrl = z
  .string()
  .max(300)
  .regex(
    /^https?:\/\/[^\s/?#@A-Z]+$/,
    "an address such as https://llm.example (lower case, no path, no slash at its end)",
  );

const serverSection = z.strictObject({
  host: plainPath.default("127.0.0.1").describe("Address to listen on. HOST overrides it."),
  port: count(0, 65535).default(8080).describe("Port to listen on; 0 picks a free one. PORT overrides it."),
  trust_proxy: addresses.default([]).describe("Reverse proxies whose X-Forwarded-For is trusted."),
  cors_origins: z
    .preprocess((value) => (value === "*" ? ["*"] : value), z.array(origin))
    .default([])
    .describe('Web pages that may use the proxy from a browser: their origins, or "*" for all. Not for /admin.'),
  max_connections: count(1, 1_000_000)
    .optional()
    .describe(
      "Maximum number of open connections; more are closed. Default: half of what the limit of open files leaves.",
    ),
  backlog: count(1, 65_535)
    .default(4096)
    .describe("Connections that may wait to be accepted; the system's limit (net.core.somaxconn) applies too."),
  body_limit_bytes: count(1024, 1 << 30)
    .default(32 << 20)
    .describe(
      "Largest request body. All bodies of running requests may take 4 times as much per user, 16 times in total.",
    ),
  request_seconds: seconds(600)
    .default(20)
    .describe(
      "Headers must arrive within this time, and a body must advance by 1 KB a second in each such span, else 408.",
    ),
  shutdown_seconds: seconds(3600).default(25).describe("How long running streams may continue after SIGTERM."),
  shutdown_delay_seconds: z
    .number()
    .min(0)
    .max(3600)
    .default(0)
    .describe(
      "How long to keep serving requests after SIGTERM before shutdown_seconds begins, with /healthz at 503: for load balancers.",
    ),
});

const storageSection = z.strictObject({
  users_dir: plainPath.default("users").describe("Accounts, quotas and the journal; relative to this file."),
  logs_dir: plainPath.default("logs").describe("Behaviour logs; relative to this file."),
  durability: z
    .enum(["interval", "strict"])
    .default("interval")
    .describe("`interval` syncs charges to disk every sync_interval_ms, `strict` before they are acknowledged."),
  sync_interval_ms: count(1, 10_000).default(50).describe("A power loss loses at most this much."),
  snapshot_interval_seconds: seconds(3600).default(5).describe("How often changed quotas are written to users/."),
  segment_bytes: count(4096, 1 << 30)
    .default(16 << 20)
    .describe("Size at which the journal starts a new file."),
  journal_archive_days: count(0, 36_500)
    .default(40)
    .describe(
      "Days to keep journal files covered by snapshots in `journal/archive`, compressed, so that a month's bill can be exported and recomputed: about 120 MB for a million requests. 0: they are deleted at once; files already in the archive stay.",
    ),
});

const authSection = z.strictObject({
  issuer: z.string().min(1).default("deepseek-proxy").describe("`iss` of the tokens."),
  audience: z.string().min(1).default("deepseek-proxy").describe("`aud` of the tokens."),
  access_token_seconds: count(10, 86_400).default(900).describe("Lifetime of an access token."),
  session_seconds: count(60, 31_536_000).default(2_592_000).describe("Lifetime of a session, from login to its end."),
  refresh_token_seconds: count(60, 31_536_000).default(604_800).describe("A session unused for so long ends."),
  refresh_leeway_seconds: count(0, 300)
    .default(10)
    .describe("How long an exchanged refresh token still gets the same successor."),
  max_sessions: count(1, 1000).default(50).describe("Sessions of one user; one more ends the oldest."),
  login_reuse_seconds: count(0, 3600).default(10).describe("A repeated login within this time gets the same token."),
  max_hashes: count(1, 2).default(2).describe("Concurrent argon2 runs; more would delay the journal's syncs."),
  max_waiting_logins: count(1, 10_000)
    .default(50)
    .describe(
      "Logins that may wait for their turn; more get 429. Those from known addresses have a separate queue of the same length; those with unknown names one of a fifth.",
    ),
});

const modelsSection = z.strictObject({
  aliases: z
    .record(modelGlob, plainModel)
    .default({})
    .describe(
      'Names that clients send -> names that providers know. Globs such as "claude-*" may be on the left: a name wins over a glob, a glob with more letters over one with fewer.',
    ),
  prices: pricesSchema,
  weights: weightsSchema,
});

const perSecond = z.number().positive().max(1e6);

const rateLimitSection = z.strictObject({
  requests_per_second: perSecond
    .default(100)
    .describe("Requests per second to providers, for all users together; bursts of twice as many are allowed."),
  per_user: perSecond.optional().describe("The same per user; absent: no limit."),
  per_key: perSecond.optional().describe("The same per API key; absent: no limit."),
});

const logsSection = z.strictObject({
  level: z.enum(logLevels).default("info").describe("The proxy's own log, on stdout."),
  flush_ms: count(10, 60_000).default(500).describe("How long a line of the behaviour log may wait in memory."),
  max_queued: count(100, 10_000_000)
    .default(50_000)
    .describe("Maximum number of waiting lines; more are dropped and counted."),
  max_file_bytes: count(1024, 1 << 30)
    .default(64 << 20)
    .describe("Size at which a day's behaviour log continues in a new file."),
  keep_days: count(1, 3650).default(30).describe("Behaviour logs older than this are removed."),
  max_total_bytes: count(0, 2 ** 50)
    .default(0)
    .describe(
      "Size of all behaviour logs beyond which the oldest days are removed, checked at the start and once a day; 0: no limit.",
    ),
  compress_after_days: count(0, 3650)
    .default(0)
    .describe(
      "Days after which a day's behaviour logs are compressed to `NAME.jsonl.gz`, once a day; 0: never, for programs that read them as they are. The admin API and the panel read both.",
    ),
  audit_keep_days: count(1, 36_500).default(400).describe("The same for the audit log of administrators' changes."),
});

const metricsSection = z.strictObject({
  allow: addresses.default(loopback).describe("Addresses that may read /metrics and the details of /healthz."),
  token_env: z
    .string()
    .min(1)
    .default("METRICS_TOKEN")
    .describe("Environment variable of a bearer token that allows the same."),
});

const abortSection = z.strictObject({
  policy: z
    .enum(["auto", "drain", "cancel"])
    .default("auto")
    .describe(
      "What happens to a response whose client has disconnected: `drain` reads on to the reported usage, `cancel` stops at once and estimates, `auto` drains if the user has limits of tokens or cost.",
    ),
  drain_seconds: z.number().min(0).max(600).default(5).describe("Maximum time to drain a response."),
  drain_tokens: count(0, 1_000_000)
    .default(2000)
    .describe("Maximum number of output tokens to drain, estimated from their text."),
  free_disconnects_per_hour: count(0, 1000)
    .default(10)
    .describe(
      "How many requests per hour a user may waste for free: by disconnecting before the first event, or with a response in one JSON that is cut off because the budget ran out. For each further one, the request and its prompt are charged.",
    ),
});

const chatSection = z.strictObject({
  stream_default: z
    .boolean()
    .default(true)
    .describe(
      "Whether /chat/completions streams if a request doesn't contain `stream`, and its Accept allows more than JSON.",
    ),
  json_heartbeat: z
    .boolean()
    .default(false)
    .describe(
      "Whether clients that wait for one JSON get blank lines before it while the provider is silent, every `heartbeat_seconds`, as DeepSeek sends them. They follow a 200 without Content-Length: a later failure is reported in an error body under that 200.",
    ),
  collect_limit_bytes: count(1024, 256 << 20)
    .default(64 << 20)
    .describe(
      "Largest response that is collected into one JSON, in bytes of the provider's events; beyond it, the provider is stopped and the client gets 502.",
    ),
});

const usageSection = z.strictObject({
  keep_days: count(1, 3650).default(90).describe("Days of usage history that are kept."),
});

const adminSection = z.strictObject({
  allow: addresses.default(loopback).describe("Addresses that may use /admin."),
});

const panelSection = z.strictObject({
  enabled: z.boolean().default(true).describe("Whether /panel/ is served."),
  title: z.string().min(1).max(80).default("deepseek-proxy").describe("The name that the panel shows."),
  session_seconds: count(60, 31_536_000)
    .default(43_200)
    .describe("Lifetime of a login in the panel; `auth` bounds it as well."),
  public_url: publicUrl
    .optional()
    .describe(
      "Where browsers reach the proxy, such as https://llm.example, if a reverse proxy stands before it. `oidc` needs it.",
    ),
  secure_cookie: z
    .enum(["auto", "always", "never"])
    .default("auto")
    .describe(
      "Whether the cookie is sent over https alone. `auto`: where the page came over https, `public_url` does, or the browser is on this machine.",
    ),
});

const sections = z.strictObject({
  server: serverSection.prefault({}),
  storage: storageSection.prefault({}),
  state: stateSection.prefault({}),
  auth: authSection.prefault({}),
  providers: z.array(providerSection).default([]),
  models: modelsSection.prefault({}),
  quota: quotaSection.prefault({}),
  groups: groupsSection,
  rate_limit: rateLimitSection.prefault({}),
  limits: rateRulesSection.default([]),
  concurrency: concurrencySection.prefault({}),
  overload: overloadSection.prefault({}),
  timeouts: timeoutsSection.prefault({}),
  retry: retrySection.prefault({}),
  breaker: breakerSection.prefault({}),
  health: healthSection.prefault({}),
  abort: abortSection.prefault({}),
  chat: chatSection.prefault({}),
  usage: usageSection.prefault({}),
  logs: logsSection.prefault({}),
  metrics: metricsSection.prefault({}),
  admin: adminSection.prefault({}),
  panel: panelSection.prefault({}),
  access: accessSection.prefault({}),
  risk: riskSection.prefault({}),
  security: securitySection.prefault({}),
  oidc: oidcSection.default([]),
  alerts: alertsSection.prefault({}),
  events: eventsSection.prefault({}),
  telemetry: telemetrySection.prefault({}),
});

/** What has to fit together. */
function checkWhole(config: z.output<typeof sections>, ctx: z.core.$RefinementCtx): void {
  const names = config.providers.map(({ name }) => name);
  names.forEach((name, index) => {
    const first = names.indexOf(name);
    if (first === index) return;
    const message = `expected another name than providers.${first} has`;
    ctx.addIssue({ code: "custom", path: ["providers", index, "name"], message });
  });
  // A price for a nonexistent provider would never apply, and requests would be free.
  config.models.prices.forEach(({ provider = "simulator" }, index) => {
    if (provider === "simulator" || names.length === 0 || names.includes(provider)) return;
    const message = `expected the name of a provider: ${names.join(", ")}`;
    ctx.addIssue({ code: "custom", path: ["models", "prices", index, "provider"], message });
  });
  checkPriceDates(config.models.prices, config.quota.timezone, ctx);
  checkTierLimits(config.quota, config.models.prices, ctx);
  checkPermits(config, ctx);
  checkRates(config, ctx);
  checkGroups(config, ctx);
  checkOidc(config, ctx);
}

/** config.toml with all keys. Unknown keys are refused. */
export const configSchema = sections.superRefine(checkWhole);

/** A config that was put together from two valid ones. */
export const mergedConfigSchema = z.custom<Config>().superRefine(checkWhole);

export { groupSchema } from "./groups-schema.ts";
export type { GroupConfig, GroupRate } from "./groups-schema.ts";
export type { OidcIssuerConfig } from "./oidc-schema.ts";
export type { BreakerConfig, ProviderConfig, TimeoutsConfig } from "./provider-schema.ts";
export { defaultBurst, defaultRateName } from "./rates-schema.ts";
export { grantsSchema, limitsSchema, maxGrants } from "./quota-schema.ts";
export type { RiskConfig } from "./risk-schema.ts";
export type { GrantConfig, LimitConfig } from "./quota-schema.ts";
export { isoInstant, modelGlob, network, note, plainName } from "./value-schemas.ts";

/** The parsed config, with all defaults filled in. */
export type Config = Readonly<z.infer<typeof configSchema>>;
