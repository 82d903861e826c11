import { request } from "undici";
import type { Alerts } from "./alerts.ts";
import type { Clock } from "../lib/clock.ts";
import type { Balance } from "./provider-kind.ts";
import type { Provider } from "./provider.ts";
import { readText, failureReason } from "./read-text.ts";

/** The result of the last probe of an account. */
export interface ProbeResult {
  /** ms since the epoch. */
  readonly at: number;
  /** Whether the provider responded and accepted the key. */
  readonly ok: boolean;
  /** Why not: text, a code or a status, nothing secret. */
  readonly reason: string | null;
  /** null if the provider doesn't report it. */
  readonly balance: Balance | null;
}

/** Probes every account from time to time. Only for people to see: routing depends on the results of requests. */
export interface ProviderProbes {
  /** null until the first probe has finished. */
  lastOf(provider: Provider): ProbeResult | null;
  close(): void;
}

export interface ProbesOptions {
  readonly providers: readonly Provider[];
  /** ms between two probes of an account, on average; 0 never. */
  readonly everyMs: number;
  readonly clock: Clock;
  /** A number in [0, 1): proxies that started together must not probe together. */
  readonly random: () => number;
  readonly alerts: Alerts;
  /** Called after each probe of a provider, whatever its result. */
  readonly onProbed?: (provider: Provider) => void;
}

/** Longest time of a probe, in ms, and largest response, in bytes. */
const timeoutMs = 3_000;
const maxBytes = 1 << 20;

export function createProviderProbes({
  providers,
  everyMs,
  clock,
  random,
  alerts,
  onProbed,
}: ProbesOptions): ProviderProbes {
  const results = new Map<Provider, ProbeResult>();
  const timers = new Map<Provider, NodeJS.Timeout>();
  let closed = false;

  function schedule(provider: Provider): void {
    const ms = everyMs * (0.75 + random() / 2);
    timers.set(provider, setTimeout(() => void probeOne(provider), ms).unref());
  }

  async function probeOne(provider: Provider): Promise<void> {
    const key = provider.secret;
    let outcome = await probe(provider);
    if (outcome.reason === "status 401" && provider.hasReplaced(key)) outcome = await probe(provider);
    if (closed) return;
    results.set(provider, { ...outcome, at: clock.now() });
    if (outcome.reason === "status 401" || outcome.reason === "status 403") alerts.raise(provider, "key_refused", "");
    if (outcome.balance?.available === false) alerts.raise(provider, "no_balance", "");
    onProbed?.(provider);
    schedule(provider);
  }

  if (everyMs > 0) providers.forEach(schedule);
  return {
    lastOf: (provider) => results.get(provider) ?? null,
    close() {
      closed = true;
      for (const timer of timers.values()) clearTimeout(timer);
    },
  };
}

async function probe(provider: Provider): Promise<Omit<ProbeResult, "at">> {
  const { kind, origin, basePath, query } = provider;
  try {
    const response = await request(origin + kind.probe.pathOf(basePath) + query, {
      dispatcher: provider.dispatcher,
      headers: { ...provider.headers, accept: "application/json" },
      signal: AbortSignal.timeout(timeoutMs),
    });
    const body = await readText(response, maxBytes);
    // Other statuses are fine: not every provider has such a route. Only a rejected key means that nothing will work.
    const { statusCode: status } = response;
    if (status >= 500 || status === 401 || status === 403) return failure(`status ${status}`);
    const balance = status === 200 ? kind.probe.readBalance(JSON.parse(body)) : null;
    return { ok: true, reason: null, balance };
  } catch (error) {
    return failure(failureReason(error, timeoutMs));
  }
}

function failure(reason: string): Omit<ProbeResult, "at"> {
  return { ok: false, reason, balance: null };
}
