import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { isSecretKey, scrubSecrets } from "../../lib/secret-text.ts";
import { kindOfError } from "../error-kinds.ts";
import { UpstreamFault, type AnswerHead, type FaultFacts } from "../faults.ts";
import type { Provider, ReportedError } from "../providers/provider.ts";
import type { Fields } from "./answer-facts.ts";
import { readErrorBody } from "./reported-error.ts";
import { readRetryAfter } from "./retry-after.ts";

/** An error answer longer than this, in bytes, tells nothing more. */
const maxBytes = 64 << 10;

/** Longest text among an error's other fields, in characters; their number and depth; and all of them, as JSON. */
const maxText = 4000;
const maxFields = 20;
const maxDepth = 4;
const maxOthers = 16 << 10;

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** An answer that is an error, while it arrives. */
export class ErrorAnswer {
  readonly #provider: Provider;
  readonly #model: string;
  readonly #status: number;
  readonly #headers: Headers;
  readonly #body = new GrowingBuffer(maxBytes);

  /**
   * @param model as the provider knows it
   * @param status HTTP status
   */
  constructor(provider: Provider, model: string, status: number, headers: Headers) {
    this.#provider = provider;
    this.#model = model;
    this.#status = status;
    this.#headers = headers;
  }

  /** Takes a piece of the body. False where enough of it has been seen. */
  push(piece: Buffer): boolean {
    return this.#body.push(piece);
  }

  /**
   * What it comes to. The body need not be JSON: DeepSeek's 401 is plain text, a gateway's 502 is HTML.
   * @param now wall-clock ms
   */
  fault(now: number): UpstreamFault {
    const error = readErrorBody(this.#body.take().toString("utf8"));
    const retryAfterMs = readRetryAfter(this.#headers, now);
    return faultOfError(this.#provider, this.#model, error, this.#status, {
      stage: "first_event",
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
}

/** How an answer began, fit for a log. */
export function headOf(provider: Provider, status: number, headers: Headers): AnswerHead {
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
 * Makes a fault of an error that a provider has reported.
 * @param model as the provider knows it
 * @param status HTTP status; 200 where the error is in an answer that had begun well
 */
export function faultOfError(
  provider: Provider,
  model: string,
  error: ReportedError,
  status: number,
  facts: Pick<FaultFacts, "stage" | "retryAfterMs">,
): UpstreamFault {
  const { secret, dialect, health } = provider;
  const { keyWorked } = health;
  const kind = kindOfError(dialect, { status, error, model }, { secret, keyWorked });
  const clean = (text: string): string => withoutSecret(text, provider);
  const shown = status < 300 ? error.status : status;
  return new UpstreamFault({
    ...facts,
    kind,
    ...(shown === null ? {} : { status: shown }),
    ...((shown === 400 || shown === 422) && namesStreamOptions(error) ? { namesStreamOptions: true } : {}),
    upstreamMessage: clean(error.message),
    upstream: {
      code: clean(error.code),
      param: clean(error.param),
      others: cleanFields({ ...(error.type === "" ? {} : { type: error.type }), ...error.other }, clean),
    },
  });
}

/** Whether an error is about the request's `stream_options`. Its other fields may quote the client, so they don't count. */
function namesStreamOptions({ param, code, message }: ReportedError): boolean {
  return [param, code, message].some((text) => /stream_options|include_usage/.test(text));
}

/** A provider may quote the key that it refused, or other secrets; nobody is to read them here. */
function withoutSecret(text: string, keys: Pick<Provider, "secret" | "formerSecret">, longest = maxText): string {
  let known = text;
  for (const key of [keys.secret, keys.formerSecret]) if (key !== "") known = known.replaceAll(key, "[key]");
  const safe = scrubSecrets(known.slice(0, 2 * longest));
  return safe.length > longest ? `${safe.slice(0, longest)}…` : safe;
}

/** An error's other fields, without secrets; what would be too large is left out. */
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
