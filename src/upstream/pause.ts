import { ClientGoneError, type Hangup } from "../lib/hangup.ts";

/**
 * Waits for `ms`, never less: Node's timers count from the last full ms and drop fractions, so one could end before a
 * limit that it was to outlast, and the provider would refuse. Rejects with ClientGoneError as soon as the client leaves.
 */
export function pause(ms: number, hangup: Hangup): Promise<void> {
  return new Promise((resolve, reject) => {
    if (hangup.gone) {
      reject(new ClientGoneError());
      return;
    }
    const timer = setTimeout(
      () => {
        hangup.onGone = undefined;
        resolve();
      },
      Math.ceil(ms) + 1,
    ).unref();
    hangup.onGone = () => {
      clearTimeout(timer);
      hangup.onGone = undefined;
      reject(new ClientGoneError());
    };
  });
}

/**
 * A random part of a pause that doubles with each failure ("full jitter"): requests that failed together must not come
 * back together.
 * @param failures so far, at least 1
 */
export function backoffMs(
  failures: number,
  rule: { readonly baseMs: number; readonly maxMs: number },
  random: () => number,
): number {
  return random() * Math.min(rule.maxMs, rule.baseMs * 2 ** (failures - 1));
}
