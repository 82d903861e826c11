import type { Backends } from "../../src/backends.ts";

/**
 * Comes before a call: the call is made once it resolves, and fails where it rejects.
 *
 * @param carryOut makes the call at once; what comes of it is lost unless this rejects
 */
export type BeforeCall = (call: string, carryOut: () => Promise<unknown>) => Promise<void>;

/** Facts of this process, which even a backend behind a network knows at once. */
const local = new Set(["inFlight", "waiting", "close"]);
/** Calls whose result has verbs of its own. */
const makers = new Set(["reserve", "acquire", "start", "take"]);

/** Backends that answer each call so many ms later, as those behind a network do. */
export function delayedBackends(own: Backends, ms = 3): Backends {
  return slowBackends(own, later(ms));
}

/** Backends whose `nth` call of a kind, and all after it, fail as a lost connection does. */
export function failingBackends(own: Backends, failing: string, nth = 1): Backends {
  return slowBackends(own, failsAt(failing, nth));
}

/** Backends that answer each call as a promise, never at once. */
export function slowBackends(own: Backends, before: BeforeCall): Backends {
  return Object.fromEntries(Object.entries(own).map(([name, port]) => [name, slow(port as object, before)])) as never;
}

/** Any port, or what a port has made for one request, with every call behind `before`. */
function slow<Port extends object>(port: Port, before: BeforeCall): Port {
  return new Proxy(port, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function" || typeof name !== "string" || local.has(name)) return value;
      if (name === "usageOfAll" || name === "recorded") {
        return async function* (...given: unknown[]) {
          await before(name, () => Promise.resolve());
          yield* Reflect.apply(value, target, given) as AsyncIterable<unknown>;
        };
      }
      return async (...given: unknown[]) => {
        await before(name, () => Promise.resolve(Reflect.apply(value, target, given) as unknown));
        const result: unknown = await Reflect.apply(value, target, given);
        return makers.has(name) && typeof result === "object" && result !== null ? slow(result, before) : result;
      };
    },
  });
}

/** Before each call so many ms pass. */
function later(ms: number): BeforeCall {
  return () => new Promise((resolve) => setTimeout(resolve, ms));
}

/** The `nth` call of a kind, and all after it, fail. */
function failsAt(failing: string, nth = 1): BeforeCall {
  let calls = 0;
  return (call) =>
    call === failing && ++calls >= nth ? Promise.reject(new Error("the connection is lost")) : Promise.resolve();
}

/** The same as `open`, but what it opens answers each call 3 ms later. */
export function delayed<Given extends unknown[], Port extends object>(
  open: (...given: Given) => Promise<Port>,
): (...given: Given) => Promise<Port> {
  return async (...given) => slow(await open(...given), later(3));
}
