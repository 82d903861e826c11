import { ClientDisconnectedError, type DisconnectSignal } from "../lib/disconnect-signal.ts";
import type { Permit } from "./concurrency.ts";

/** A place in a line. */
interface Place {
  /** Gives it up: nobody waits there any more. */
  leave(): void;
  /** The refusal of one who has waited too long. */
  exceeded(): Error;
}

interface WaitOptions {
  readonly signal: DisconnectSignal;
  readonly maxWaitMs: number;
  /** What ends the wait of each who waits, with a reason: for those who close the line. */
  readonly rejectors: Set<(reason: Error) => void>;
  /** Enters the line. `grant` must not be called before this has returned. */
  readonly join: (grant: (permit: Permit) => void) => Place;
}

/** A permit, once the line grants one. Rejects if the client disconnects, the time is over, or the line is closed. */
export function waitForPermit({ signal, maxWaitMs, rejectors, join }: WaitOptions): Promise<Permit> {
  return new Promise((resolve, reject) => {
    const stopWaiting = (): void => {
      clearTimeout(timer);
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
    const onGone = (): void => {
      giveUp(new ClientDisconnectedError());
    };
    signal.onGone = onGone;
    rejectors.add(giveUp);
  });
}
