import type { Emit, ProviderAlert } from "../events/catalogue.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import type { Clock } from "../lib/clock.ts";
import type { UpstreamErrorKind } from "./upstream-error.ts";
import type { Provider } from "./provider.ts";

/** Alerts the operator. */
export interface Alerts {
  /**
   * Emits a `provider.alert`, at most one a minute for each key and kind: while an account is empty every request
   * fails.
   * @param traceId of the request that failed; "" for a probe
   */
  raise(provider: Provider, kind: UpstreamErrorKind, traceId: string): void;
}

interface AlertsOptions {
  readonly emit: Emit;
  readonly clock: Clock;
  /** Whether no other process says this within so many ms. Default: there is none. */
  readonly claim?: (subject: string, ms: number) => Awaitable<boolean>;
}

/** ms before an alert is repeated. */
const quietMs = 60_000;

export function createAlerts({ emit, clock, claim = () => true }: AlertsOptions): Alerts {
  // One entry for each key and kind, so it is as small as the config.
  const raisedAt = new Map<string, number>();
  return {
    raise(provider, kind, traceId) {
      if (!isAlert(kind)) return;
      const now = clock.monotonic();
      const subject = `${provider.name} ${provider.keyIndex} ${kind}`;
      if (now - (raisedAt.get(subject) ?? -Infinity) < quietMs) return;
      raisedAt.set(subject, now);
      const { name, keyIndex: key } = provider;
      const tell = (isFirst: boolean): void => {
        if (isFirst) emit({ type: "provider.alert", at: clock.now(), traceId, ip: "", provider: name, key, kind });
      };
      const claimed = claim(subject, quietMs);
      if (claimed instanceof Promise) void claimed.then(tell);
      else tell(claimed);
    },
  };
}

function isAlert(kind: UpstreamErrorKind): kind is ProviderAlert["kind"] {
  return kind === "key_refused" || kind === "no_balance";
}
