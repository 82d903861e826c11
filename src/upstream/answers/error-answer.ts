import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { isSecretKey, scrubSecrets } from "../../lib/secret-text.ts";
import { kindOfError } from "../error-kinds.ts";
import { UpstreamFault, type AnswerHead, type FaultFacts } from "../faults.ts";
import type { Provider, ReportedError } from "../providers/provider.ts";
import { isFields, type Fields } from "./answer-facts.ts";
import { findError, readErrorBody } from "./reported-error.ts";
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
    const status = this.#status;
    const body = this.#body.take().toString("utf8");
    // Under 200 a body that is no error is an answer in a wrong form, and none of it belongs into a log.
    const error = status < 300 ? findErrorIn(body) : readErrorBody(body);
    if (error === null) return this.#wrongForm();
    const retryAfterMs = readRetryAfter(this.#headers, now);
    return faultOfError(this.#provider, this.#model, error, status, {
      ...{ stage: "first_event", head: this.#head() },
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }

  #wrongForm(): UpstreamFault {
    const facts = { status: this.#status, head: this.#head(), upstreamMessage: "the answer is of another media type" };
    return new UpstreamFault({ kind: "invalid_response", stage: "first_event", ...facts });
  }

  #head(): AnswerHead {
    const text = (name: string): string | undefined => {
      const value = this.#headers[name];
      return value === undefined ? undefined : withoutSecret(String(value), this.#provider, 200);
    };
    return {
      contentType: text("content-type"),
      contentEncoding: text("content-encoding"),
      location: text("location"),
    };
  }
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
  facts: Pick<FaultFacts, "stage" | "retryAfterMs" | "head">,
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
    upstreamMessage: clean(error.message),
    upstream: {
      code: clean(error.code),
      param: clean(error.param),
      others: cleanFields({ ...(error.type === "" ? {} : { type: error.type }), ...error.other }, clean),
    },
  });
}

/** The error that a JSON is or holds; null where it is none. */
function findErrorIn(body: string): ReportedError | null {
  try {
    const parsed: unknown = JSON.parse(body);
    return isFields(parsed) ? findError(parsed) : null;
  } catch {
    return null;
  }
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
