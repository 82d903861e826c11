import { request } from "undici";
import type { Alerts } from "./alerts.ts";
import type { Clock } from "../lib/clock.ts";
import type { Balance } from "./provider-kind.ts";
import type { ProviderHealth } from "./provider-health.ts";
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
  /**
   * Probes these providers from now on. Results of those that were probed before stay.
   * @param everyMs ms between two probes of an account, on average; 0 never
   */
  configure(providers: readonly Provider[], everyMs: number): void;
  /** Another process has probed an account. */
  learn(provider: Provider, result: ProbeResult): void;
  close(): void;
}

export interface ProbesOptions {
  readonly clock: Clock;
  /** A number in [0, 1): proxies that started together must not probe together. */
  readonly random: () => number;
  readonly alerts: Alerts;
  /** Called after each probe of a provider, whatever its result; `isOwn`: it was this process that probed. */
  readonly onProbed?: (provider: Provider, result: ProbeResult, isOwn: boolean) => void;
  /** Whether this process probes, asked before each; default: it does. */
  readonly mayProbe?: () => boolean;
}

/** A provider that is probed. Its account's health identifies it: that lives on while the config is reloaded. */
interface Probed {
  provider: Provider;
  last: ProbeResult | null;
  timer: NodeJS.Timeout | undefined;
}

/** Longest time of a probe, in ms, and largest response, in bytes. */
const timeoutMs = 3_000;
const maxBytes = 1 << 20;

/** Creates the probes; they begin with `configure`. */
export function createProviderProbes({ clock, random, alerts, ...options }: ProbesOptions): ProviderProbes {
  const probed = new Map<ProviderHealth, Probed>();
  let everyMs = 0;

  function schedule(one: Probed): void {
    clearTimeout(one.timer);
    const ms = everyMs * (0.75 + random() / 2);
    one.timer = everyMs === 0 ? undefined : setTimeout(() => void probeOne(one), ms).unref();
  }

  async function probeOne(one: Probed): Promise<void> {
    const { provider } = one;
    if (options.mayProbe?.() === false) {
      schedule(one);
      return;
    }
    const key = provider.secret;
    let outcome = await probe(provider);
    if (outcome.reason === "status 401" && provider.hasReplaced(key)) outcome = await probe(provider);
    if (probed.get(provider.health) !== one) return;
    one.last = { ...outcome, at: clock.now() };
    if (outcome.reason === "status 401" || outcome.reason === "status 403") alerts.raise(provider, "key_refused", "");
    if (outcome.balance?.available === false) alerts.raise(provider, "no_balance", "");
    options.onProbed?.(provider, one.last, true);
    schedule(one);
  }

  function forget(health: ProviderHealth): void {
    clearTimeout(probed.get(health)?.timer);
    probed.delete(health);
  }

  return {
    lastOf: ({ health }) => probed.get(health)?.last ?? null,
    configure(providers, ms) {
      const isOther = ms !== everyMs;
      everyMs = ms;
      const wanted = new Set(providers.map(({ health }) => health));
      for (const health of probed.keys()) if (!wanted.has(health)) forget(health);
      for (const provider of providers) {
        const known = probed.get(provider.health);
        const one = known ?? { provider, last: null, timer: undefined };
        one.provider = provider;
        probed.set(provider.health, one);
        if (known === undefined || isOther) schedule(one);
      }
    },
    learn(provider, result) {
      const one = probed.get(provider.health);
      if (one === undefined || result.at <= (one.last?.at ?? 0)) return;
      one.last = result;
      options.onProbed?.(provider, result, false);
    },
    close() {
      for (const health of probed.keys()) forget(health);
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
