import type { Backends } from "../../src/services.ts";
import type { Hold, Ledger } from "../../src/quota/ledger.ts";

/** Calls that a backend may answer late, or not at all. */
export type BackendCall =
  "take" | "giveBack" | "acquire" | "reserve" | "commit" | "grow" | "settle" | "buckets" | "adjust" | "reset" | "usage";

/** Comes before a call: the call is made once it resolves, and fails where it rejects. */
export type BeforeCall = (call: BackendCall) => Promise<void>;

/** Backends that answer each call so many ms later, as those behind a network do. */
export function delayedBackends(own: Backends, ms = 3): Backends {
  return slowBackends(own, () => new Promise((resolve) => setTimeout(resolve, ms)));
}

/** Backends whose `nth` call of a kind, and all after it, fail as a lost connection does. */
export function failingBackends(own: Backends, failing: BackendCall, nth = 1): Backends {
  let calls = 0;
  return slowBackends(own, (call) =>
    call === failing && ++calls >= nth ? Promise.reject(new Error("the connection is lost")) : Promise.resolve(),
  );
}

/** Backends that answer each call as a promise, never at once. */
export function slowBackends({ ledger, limiter, permits }: Backends, before: BeforeCall): Backends {
  return {
    ledger: slowLedger(ledger, before),
    limiter: {
      ...limiter,
      async take(ask) {
        await before("take");
        return limiter.take(ask);
      },
      async giveBack(ask) {
        await before("giveBack");
        await limiter.giveBack(ask);
      },
    },
    permits: {
      ...permits,
      async acquire(ask, signal) {
        await before("acquire");
        return permits.acquire(ask, signal);
      },
    },
  };
}

/** The same of a ledger alone, and of the holds that it gives. */
function slowLedger(ledger: Ledger, before: BeforeCall): Ledger {
  return {
    ...ledger,
    async reserve(ask) {
      await before("reserve");
      return slowHold(await ledger.reserve(ask), before);
    },
    async buckets(user, limits) {
      await before("buckets");
      return ledger.buckets(user, limits);
    },
    async adjust(user, delta, note) {
      await before("adjust");
      await ledger.adjust(user, delta, note);
    },
    async reset(user, per, note) {
      await before("reset");
      await ledger.reset(user, per, note);
    },
    async usage(query) {
      await before("usage");
      return ledger.usage(query);
    },
  };
}

function slowHold(hold: Hold, before: BeforeCall): Hold {
  return {
    get committed() {
      return hold.committed;
    },
    async commit(first) {
      await before("commit");
      await hold.commit(first);
    },
    async grow(extra) {
      await before("grow");
      return hold.grow(extra);
    },
    async settle(settlement) {
      await before("settle");
      await hold.settle(settlement);
    },
    buckets: () => hold.buckets(),
  };
}
