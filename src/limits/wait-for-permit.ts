import type { Awaitable } from "../lib/awaitable.ts";
import { ClientDisconnectedError, type DisconnectSignal } from "../lib/disconnect-signal.ts";
import type { Permit, PermitRequest, PermitScope } from "./concurrency.ts";

/** A place in a line. */
interface Place {
  /** Gives it up: nobody waits there any more. */
  leave(): void;
  /** The refusal of one who has waited too long. */
  exceeded(): Error;
  /** Uses the cap of a scope from now on. */
  useCap(scope: PermitScope): void;
}

interface WaitOptions {
  readonly request: Pick<PermitRequest, "scopes" | "providers" | "maxNow">;
  readonly signal: DisconnectSignal;
  readonly maxWaitMs: number;
  /** What ends the wait of each who waits, with a reason: for those who close the line. */
  readonly rejectors: Set<(reason: Error) => void>;
  /** Enters the line. `grant` must not be called before this has returned. */
  readonly join: (grant: (permit: Permit) => void) => Place;
}

/** How often the caps of a waiting request are looked up again, in ms: an operator may have raised them. */
const recheckMs = 1000;

/** A permit, once the line grants one. Rejects if the client disconnects, the time is over, or the line is closed. */
export function waitForPermit({ request, signal, maxWaitMs, rejectors, join }: WaitOptions): Promise<Permit> {
  const { scopes, providers, maxNow } = request;
  return new Promise((resolve, reject) => {
    let isWaiting = true;
    const stopWaiting = (): void => {
      isWaiting = false;
      clearTimeout(timer);
      clearInterval(rechecking);
      rejectors.delete(giveUp);
      signal.onGone = undefined;
    };
    const place = join((permit) => {
      stopWaiting();
      resolve(permit);
    });
    const giveUp = (reason: Error): void => {
      stopWaiting();
      place.leave();
      reject(reason);
    };
    const timer = setTimeout(() => {
      giveUp(place.exceeded());
    }, maxWaitMs);
    const recheck = async (scope: PermitScope, maxOf: (scope: PermitScope) => Awaitable<number>): Promise<void> => {
      const max = await maxOf(scope);
      if (isWaiting) place.useCap({ ...scope, max });
    };
    const rechecking =
      maxNow === undefined
        ? undefined
        : setInterval(() => {
            // Where it can't be known the cap stays.
            for (const scope of [...scopes, ...providers]) recheck(scope, maxNow).catch(() => undefined);
          }, recheckMs);
    const onGone = (): void => {
      giveUp(new ClientDisconnectedError());
    };
    signal.onGone = onGone;
    rejectors.add(giveUp);
  });
}
