import { ConnectionError, ProxyError } from "./errors.ts";

/** How often and how long to try again. */
export interface RetryPolicy {
  /** Tries after the first one; default 2. */
  readonly maxRetries?: number;
  /** The longest wait that is accepted, in s; default 60. What the proxy asks for beyond it is left to the caller. */
  readonly maxWaitSeconds?: number;
  /** Waits; replaced by tests. Rejects when the signal fires. */
  readonly sleep?: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
}

/** A try that failed and is about to be repeated. */
export interface RetryNotice {
  readonly error: ProxyError;
  /** 1 for the first repeat. */
  readonly retry: number;
  readonly waitMs: number;
}

/**
 * Whether a failed request can be sent again without being charged twice: the proxy says so, it has refused the request
 * before it was sent to a model (429, 503), or no server was reached. Call it only where no event has come.
 */
export function isSafeToRepeat({ status, code, shouldRetry }: ProxyError): boolean {
  if (shouldRetry !== undefined) return shouldRetry;
  return status === 429 || status === 503 || code === "connection_failed" || repeatableEvents.has(code);
}

/** What an error event ahead of all data can say; it stands for a 429 or 503 that came after the status was sent. */
const repeatableEvents: ReadonlySet<string> = new Set([
  "rate_limited",
  "concurrency_exceeded",
  "upstream_rate_limited",
  "upstream_unavailable",
  "upstream_overloaded",
  "proxy_overloaded",
  "shutting_down",
]);

/** Runs `attempt` until it succeeds or may not be repeated. It throws what may be repeated as ProxyError. */
export async function withRetries<T>(
  attempt: () => Promise<T>,
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  onRetry: ((notice: RetryNotice) => void) | undefined,
): Promise<T> {
  const { maxRetries = 2, maxWaitSeconds = 60, sleep = wait } = policy;
  for (let retry = 1; ; retry++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof ProxyError) || retry > maxRetries || !isSafeToRepeat(error)) throw error;
      const waitMs = (error.retryAfterSeconds ?? backOffSeconds(retry)) * 1000;
      if (waitMs > maxWaitSeconds * 1000) throw error;
      onRetry?.({ error, retry, waitMs });
      await sleep(waitMs, signal);
    }
  }
}

/** 0.5 s, 1 s, 2 s … 8 s, less up to a quarter, so that many clients don't come back at once. */
function backOffSeconds(retry: number): number {
  return Math.min(8, 0.5 * 2 ** (retry - 1)) * (1 - Math.random() / 4);
}

function wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason instanceof Error ? signal.reason : new DOMException("Aborted.", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    if (signal?.aborted === true) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}

const unsent: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
  "ConnectionRefused",
]);

/**
 * What a fetch that threw stands for. Only where the runtime says that there was no connection is it known that
 * nothing was sent; a request that may have arrived may have been charged.
 */
export function connectionError(cause: unknown): ConnectionError {
  const failed = [cause, ...causesOf(cause)].some((error) => unsent.has(codeOf(error)));
  return failed
    ? new ConnectionError({ code: "connection_failed", message: "The proxy can't be reached.", cause })
    : new ConnectionError({ code: "connection_lost", message: "The connection broke before the answer.", cause });
}

/** The causes below an error; of several addresses that failed, all. */
function causesOf(error: unknown): readonly unknown[] {
  if (!(error instanceof Error) || !(error.cause instanceof Error)) return [];
  return [error.cause];
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}
