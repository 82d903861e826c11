import { z } from "zod";

/*
 * What each event carries on outer wires beside its envelope. docs/events.md and docs/events.schema.json are made of
 * this. The rule for changes: a new field keeps the version, and readers ignore fields that they don't know. A field
 * that goes, or means something else, raises it.
 */

const word = z.string();
const count = z.int().min(0);
const ms = z.number().min(0);
const anything = z.record(z.string(), z.unknown()).readonly();

/** What has to wait for its next login: an account from anywhere, an address, or an account from an address that it knows. */
export const lockScopes = ["account", "address", "known_address"] as const;

function v1<S extends z.ZodRawShape>(data: S) {
  return { version: 1, data: z.strictObject(data) };
}

const subject = word.describe('Public id of the session, key or code; "*" for all sessions, "" for a password.');
const by = word.describe("The administrator; `cli:NAME` for the command line.");
const method = z.literal("oidc").optional().describe("Through an identity provider; absent: with a password.");
const level = z.number().min(0).max(1).describe("The part of the work that is refused.");
const shortOf = word.describe('What is short: "event_loop", "heap" or "descriptors".');
const credential = v1({ subject });
const overload = v1({ level, reason: shortOf });

/**
 * The fields of the envelope.
 *
 * @public read by scripts/event-docs.mjs
 */
export const envelopeFields = {
  id: word.describe("A UUID of version 7; the same for every consumer."),
  time: z.iso.datetime().describe("UTC, with milliseconds."),
  type: word,
  version: count.describe("Of the schema of `data`, from 1."),
  node: word.describe("The process: NODE_NAME, else `HOSTNAME:PORT`."),
  request_id: word.nullable().describe("X-Request-ID of the request that caused it."),
  trace_id: word.nullable().describe("The W3C trace-id of that request, 32 hex digits."),
  user: word.nullable().describe("Whom it is about. At a failed login: the name that was tried."),
  group: word.nullable().describe("The group that the request counted for."),
  key_id: word.nullable().describe("The id of the request's API key."),
  address: word.nullable().describe("The client's."),
  data: anything.describe("The payload, by type."),
};

/** The payloads of all events, by type. */
export const payloads = {
  "chat.finished": v1({
    client: word.describe('The client program, from its User-Agent; "" if it names none.'),
    api: word.describe('chat, completions, messages, ...; "" if the request was refused as invalid.'),
    model: word.describe("As the client named it, at most 128 characters."),
    provider: word.describe('"" if none was chosen.'),
    stream: z.boolean(),
    outcome: word.describe("How the request ended, which decides what is charged: see QUOTA_DESIGN.md."),
    code: word.describe('"ok", or the error code that the client got.'),
    status: count.describe("HTTP status; 0 if the client disconnected before one was sent."),
    requests: z.number().min(0).describe("Requests charged, by the model's weight."),
    input_tokens: count.describe("Tokens of the prompt, with those from the provider's cache."),
    cached_tokens: count,
    output_tokens: count.describe("Tokens of the response, with those of its reasoning."),
    reasoning_tokens: count,
    cost_nano: z.int().describe("In nano-units of `currency`."),
    currency: word.describe('"" if nothing was charged.'),
    estimated: z.boolean().describe("Whether tokens were estimated, for want of the provider's report."),
    first_event_ms: ms.nullable().describe("From the first attempt to the first data event; null if none came."),
    generation_ms: ms.nullable().describe("From then to the end of the provider's response; null if none came."),
    duration_ms: ms.describe("From the arrival of the request to its end."),
    queue_ms: ms.describe("Time that it waited for a permit."),
    retries: count.describe("Attempts at providers beyond the first."),
  }),
  "request.finished": v1({
    route: word.describe("What the route is for: api, models, auth, admin, ops or other."),
    code: word.describe('"ok", or the error code that the client got.'),
    status: count,
  }),
  "login.locked": v1({
    scope: z.enum(lockScopes).describe("What has to wait."),
    failures: count.describe("Failed logins so far."),
    escalation: z.enum(["begun", "longest"]),
    wait_ms: ms.describe("Until the next attempt."),
  }),
  "login.unlocked": v1({ by }),
  "login.failed": v1({ result: z.enum(["failure", "blocked"]), reason: word, method }),
  "login.succeeded": v1({ method }),
  "user.registered": credential,
  "session.reuse_detected": credential,
  "session.ended": credential,
  "api_key.created": credential,
  "api_key.revoked": credential,
  "password.changed": credential,
  "provider.alert": v1({
    provider: word,
    key: count.describe("The index of the key, from 0."),
    kind: z.enum(["key_refused", "no_balance"]),
  }),
  "quota.exceeded": v1({ metric: word, per: word.describe("The period of the limit.") }),
  "rate_limit.rejected": v1({ rule: word.describe("The limit's name.") }),
  "admin.changed": v1({
    action: word.describe("As in the audit log: user.created, quota.granted, ..."),
    by,
    subject: word.describe('What was changed, unless it is the user: a session, a key, a provider, a limit; else "".'),
    before: anything.nullable().describe("The previous state; null for something new."),
    after: anything.nullable().describe("The new state; null for something removed."),
    reason: word.describe('"" if none was given.'),
  }),
  "trust.changed": v1({
    from: word.describe("A trust step."),
    to: word,
    direction: z.enum(["up", "down"]),
    score: z.number().min(0).max(100),
    reasons: z.array(word).readonly(),
  }),
  "config.reloaded": v1({
    by: word.describe("`file`, `SIGHUP`, or the name of an administrator."),
    changes: z
      .array(z.strictObject({ path: word, before: z.unknown(), after: z.unknown() }).readonly())
      .readonly()
      .describe("The first changes, with secrets masked."),
    count: count.describe("How many there are."),
    restart_needed: z.array(word).readonly().describe("Paths that only come into force with a restart."),
  }),
  "config.rejected": v1({
    by: word.describe("`file`, `SIGHUP`, or the name of an administrator."),
    error: word.describe("One problem a line."),
  }),
  "overload.began": overload,
  "overload.ended": overload,
  "events.lost": v1({
    sink: word.describe("behaviour_log, request_log, webhook, redis or kafka."),
    count: count.describe("Events lost since the latest such event; at most one is emitted a minute and sink."),
    reasons: z.record(z.string(), count).readonly().describe("The same by reason."),
  }),
} as const;

export type PayloadOf<T extends keyof typeof payloads> = z.infer<(typeof payloads)[T]["data"]>;
