import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { readError, type ReportedError } from "./answer-facts.ts";
import { UpstreamFault } from "../faults.ts";
import type { Provider } from "../providers/provider.ts";

/** Longest provider message that is passed on, in characters. */
const maxMessage = 500;

/** An error answer longer than this, in bytes, tells nothing more. */
const maxBytes = 64 << 10;

/** An answer that is an error, while it arrives. */
export class ErrorAnswer {
  readonly #provider: Provider;
  readonly #status: number;
  readonly #retryAfter: string | undefined;
  readonly #body = new GrowingBuffer(maxBytes);

  /** @param status and `retryAfter`: as faultOfErrorAnswer takes them */
  constructor(provider: Provider, status: number, retryAfter: string | undefined) {
    this.#provider = provider;
    this.#status = status;
    this.#retryAfter = retryAfter;
  }

  /** Takes a piece of the body. False where enough of it has been seen. */
  push(piece: Buffer): boolean {
    return this.#body.push(piece);
  }

  /** What it comes to. @param now wall-clock ms */
  fault(now: number): UpstreamFault {
    const body = this.#body.take().toString("utf8");
    return faultOfErrorAnswer(this.#provider, this.#status, body, this.#retryAfter, now);
  }
}

/**
 * Makes a fault of an error answer. The body need not be JSON: DeepSeek's 401 is plain text, a gateway's 502 is HTML.
 * @param status HTTP status
 * @param retryAfter the Retry-After header, if any: seconds or an HTTP date (RFC 9110, 10.2.3)
 * @param now wall-clock ms, for the date form
 */
function faultOfErrorAnswer(
  provider: Provider,
  status: number,
  body: string,
  retryAfter: string | undefined,
  now: number,
): UpstreamFault {
  const error = readErrorBody(body);
  const kind = provider.dialect.classify(status, error?.code ?? "", error?.message ?? "");
  const retryAfterMs = readRetryAfter(retryAfter, now);
  return new UpstreamFault({
    kind,
    stage: "first_event",
    status,
    upstreamMessage: withoutSecret(error?.message ?? "", provider),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

/** A provider may quote the key that it refused; nobody is to read it here. */
export function withoutSecret(
  text: string,
  { secret, formerSecret }: Pick<Provider, "secret" | "formerSecret">,
): string {
  let safe = text;
  for (const key of [secret, formerSecret]) if (key !== "") safe = safe.replaceAll(key, "[key]");
  return safe.length > maxMessage ? `${safe.slice(0, maxMessage)}…` : safe;
}

/** What an error says, as JSON or as bare text; HTML says nothing. null where it is no error. */
export function readErrorBody(body: string): ReportedError | null {
  try {
    const parsed: unknown = JSON.parse(body);
    if (typeof parsed !== "object" || parsed === null) return null;
    return readError("error" in parsed ? parsed.error : parsed);
  } catch {
    return { code: "", message: body.startsWith("<") ? "" : body };
  }
}

function readRetryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) && ms >= 0 ? ms : undefined;
}
