/** What a call on a counter with a limit did. The counter holds what is used and what is reserved together. */
export type CounterCall =
  | { readonly kind: "reserve"; readonly amount: number; readonly granted: boolean }
  /** Gives back this part of what was reserved. */
  | { readonly kind: "settle"; readonly returned: number }
  | { readonly kind: "read"; readonly counted: number };

/** A begin or an end of a call, in the order in which they were seen. Each call has both. */
export interface CallEvent {
  readonly call: number;
  readonly end?: CounterCall;
}

/** Records what concurrent calls did. */
export interface History {
  readonly events: readonly CallEvent[];
  /** Runs a call. One that throws is an error of the test. */
  record<Result>(work: () => Promise<Result>, explain: (result: Result) => CounterCall): Promise<Result>;
}

export function createHistory(): History {
  const events: CallEvent[] = [];
  let calls = 0;
  return {
    events,
    async record(work, explain) {
      const call = calls++;
      events.push({ call });
      const result = await work();
      events.push({ call, end: explain(result) });
      return result;
    },
  };
}

/** What the counter may hold, and which of the calls that run have taken effect. */
interface Possibility {
  readonly counted: number;
  readonly done: ReadonlySet<number>;
}

/**
 * Whether one counter, asked one call at a time, explains the history: with some order of the calls, each of which takes
 * effect at one moment between its begin and its end.
 *
 * @returns undefined, or the first call that nothing explains
 */
export function findUnexplained(events: readonly CallEvent[], limit: number): CounterCall | undefined {
  const ends = new Map(events.flatMap(({ call, end }) => (end === undefined ? [] : [[call, end] as const])));
  const running = new Set<number>();
  let possible: readonly Possibility[] = [{ counted: 0, done: new Set() }];
  for (const { call, end } of events) {
    if (end === undefined) {
      running.add(call);
      continue;
    }
    const next = allFrom(possible, running, ends, limit).filter(({ done }) => done.has(call));
    if (next.length === 0) return end;
    running.delete(call);
    possible = distinct(
      next.map(({ counted, done }) => ({ counted, done: new Set([...done].filter((one) => one !== call)) })),
    );
  }
  return undefined;
}

/** All that can be after any of the running calls have taken effect, in any order. */
function allFrom(
  possible: readonly Possibility[],
  running: ReadonlySet<number>,
  ends: ReadonlyMap<number, CounterCall>,
  limit: number,
): readonly Possibility[] {
  let all = possible;
  for (let added = possible; added.length > 0;) {
    const known = new Set(all.map(nameOf));
    added = distinct(
      added.flatMap(({ counted, done }) =>
        [...running].flatMap((call) => {
          const end = ends.get(call);
          const after = done.has(call) || end === undefined ? undefined : countedAfter(end, counted, limit);
          return after === undefined ? [] : [{ counted: after, done: new Set([...done, call]) }];
        }),
      ),
    ).filter((one) => !known.has(nameOf(one)));
    all = [...all, ...added];
  }
  return all;
}

/** What the counter holds after a call; undefined where it would have answered otherwise. */
function countedAfter(call: CounterCall, counted: number, limit: number): number | undefined {
  if (call.kind === "read") return call.counted === counted ? counted : undefined;
  if (call.kind === "settle") return counted - call.returned;
  if (call.granted !== counted + call.amount <= limit) return undefined;
  return call.granted ? counted + call.amount : counted;
}

function distinct(possible: readonly Possibility[]): readonly Possibility[] {
  return [...new Map(possible.map((one) => [nameOf(one), one])).values()];
}

function nameOf({ counted, done }: Possibility): string {
  return `${counted}:${[...done].sort((a, b) => a - b).join()}`;
}
