import type { Fields } from "./event-parser.ts";
import { kindOfError } from "../error-kinds.ts";
import { type ResponseHead, UpstreamError, type UpstreamErrorFacts } from "../upstream-error.ts";
import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { readRetryAfter } from "../../lib/retry-after.ts";
import { isSecretKey, scrubSecrets } from "../../lib/secret-text.ts";
import type { Provider } from "../provider.ts";
import type { ReportedError } from "./reported.ts";
import { readErrorBody } from "./reported-error.ts";

/** Most bytes that are read of an error's body. */
const maxBytes = 64 << 10;

/** Limits of an error's other fields: characters of a text, number of fields, depth, and characters of all as JSON. */
const maxText = 4000;
const maxFields = 20;
const maxDepth = 4;
const maxOthers = 16 << 10;

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** A response that is an error, while it arrives. */
export class ErrorResponse {
  readonly #provider: Provider;
  readonly #model: string;
  readonly #status: number;
  readonly #headers: Headers;
  readonly #body = new GrowingBuffer(maxBytes);

  /**
   * @param model the provider's name for it
   * @param status HTTP status
   */
  constructor(provider: Provider, model: string, status: number, headers: Headers) {
    this.#provider = provider;
    this.#model = model;
    this.#status = status;
    this.#headers = headers;
  }

  /** Takes a piece of the body. False if enough of it has been read. */
  push(piece: Buffer): boolean {
    return this.#body.push(piece);
  }

  /**
   * The error as an UpstreamError. The body need not be JSON: DeepSeek's 401 is plain text, a gateway's 502 is HTML.
   * @param now wall-clock ms
   */
  toUpstreamError(now: number): UpstreamError {
    const error = readErrorBody(this.#body.take().toString("utf8"));
    const retryAfterMs = readRetryAfter(this.#headers, now);
    return toUpstreamError(this.#provider, this.#model, error, this.#status, {
      stage: "first_event",
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
}

/** Status and headers of a response, safe to log. */
export function headOf(provider: Provider, status: number, headers: Headers): ResponseHead {
  const text = (name: string): string | undefined => {
    const value = headers[name];
    return value === undefined ? undefined : withoutSecret(String(value), provider, 200);
  };
  return {
    status,
    contentType: text("content-type"),
    contentEncoding: text("content-encoding"),
    location: text("location"),
  };
}

/**
 * Converts an error that a provider has reported.
 * @param model the provider's name for it
 * @param status HTTP status; 200 if the error came inside a response with a good status
 */
export function toUpstreamError(
  provider: Provider,
  model: string,
  error: ReportedError,
  status: number,
  facts: Pick<UpstreamErrorFacts, "stage" | "retryAfterMs">,
): UpstreamError {
  const { secret, kind, health } = provider;
  const { keyWorked } = health;
  const errorKind = kindOfError(kind, { status, error, model }, { secret, keyWorked });
  const clean = (text: string): string => withoutSecret(text, provider);
  const shown = status < 300 ? error.status : status;
  return new UpstreamError({
    ...facts,
    kind: errorKind,
    ...(shown === null ? {} : { status: shown }),
    ...(shown === 400 || shown === 422 ? formIn(error) : {}),
    upstreamMessage: clean(error.message),
    upstream: {
      code: clean(error.code),
      param: clean(error.param),
      others: cleanFields({ ...(error.type === "" ? {} : { type: error.type }), ...error.other }, clean),
    },
  });
}

/** Where to look for what an error is about, in characters: further on a message may quote the client. */
const maxReason = 300;
const refusals = /not support|unsupported|cannot be|can't be|not available|not allowed|must be verified/i;

/**
 * Whether an error is about the request's `stream_options`, or that it asks for a stream. The error's other fields may
 * quote the client, so they don't count.
 */
function formIn(error: ReportedError): Pick<UpstreamErrorFacts, "namesStreamOptions" | "namesStream"> {
  const { param, code, message } = error;
  if ([param, code, message].some((text) => /stream_options|include_usage/.test(text)))
    return { namesStreamOptions: true };
  const reason = message.slice(0, maxReason);
  return param === "stream" || (/\bstream/i.test(reason) && refusals.test(reason)) ? { namesStream: true } : {};
}

/** A provider may quote the key that it rejected, or other secrets; they are removed here. */
function withoutSecret(text: string, keys: Pick<Provider, "secret" | "formerSecret">, longest = maxText): string {
  let known = text;
  for (const key of [keys.secret, keys.formerSecret]) if (key !== "") known = known.replaceAll(key, "[key]");
  const safe = scrubSecrets(known.slice(0, 2 * longest));
  return safe.length > longest ? `${safe.slice(0, longest)}…` : safe;
}

/** An error's other fields, without secrets; fields beyond the size limit are left out. */
function cleanFields(fields: Fields, clean: (text: string) => string): Fields {
  let left = maxOthers;
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields).slice(0, maxFields)) {
    if (key === "__proto__") continue;
    const shown = isSecretKey(key) ? "[redacted]" : cleanValue(value, clean, maxDepth);
    left -= key.length + JSON.stringify(shown).length;
    if (left < 0) break;
    result[clean(key)] = shown;
  }
  return result;
}

function cleanValue(value: unknown, clean: (text: string) => string, depth: number): unknown {
  if (typeof value === "string") return clean(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth === 0) return null;
  if (Array.isArray(value)) return value.slice(0, maxFields).map((entry) => cleanValue(entry, clean, depth - 1));
  const entries = Object.entries(value).slice(0, maxFields);
  return Object.fromEntries(
    entries.map(([key, inner]) => [clean(key), isSecretKey(key) ? "[redacted]" : cleanValue(inner, clean, depth - 1)]),
  );
}
