import { useEffect, useRef, useState } from "preact/hooks";
import type { ApiError } from "./api.ts";
import { toApiError } from "./load.ts";

interface Page<T> {
  readonly items: readonly T[];
  readonly next: string | null;
}

export interface Paged<T> {
  readonly items: readonly T[];
  readonly error: ApiError | undefined;
  readonly loading: boolean;
  readonly more: boolean;
  readonly loadMore: () => void;
  readonly reload: () => void;
}

/** A list by pages behind cursors. It begins again when `key` changes; until that has come, what was there stays. */
export function usePages<T>(
  key: string,
  load: (cursor: string | undefined, signal: AbortSignal) => Promise<Page<T>>,
): Paged<T> {
  const [state, setState] = useState<{ page: Page<T>; error?: ApiError; loading: boolean }>({
    page: { items: [], next: null },
    loading: true,
  });
  const [round, setRound] = useState(0);
  /** Ends what loads of the present list: a page of an earlier one must not be added to it. */
  const present = useRef<AbortSignal | undefined>(undefined);

  const run = async (cursor: string | undefined, signal: AbortSignal): Promise<void> => {
    setState((before) => ({ page: before.page, loading: true }));
    try {
      let page = await load(cursor, signal);
      // A page may be empty and still have a next one: each request reads a bounded part of a log.
      for (let reads = 0; page.items.length === 0 && page.next !== null && reads < 20; reads += 1) {
        page = await load(page.next, signal);
      }
      if (signal.aborted) return;
      setState((before) => ({
        page: cursor === undefined ? page : { items: [...before.page.items, ...page.items], next: page.next },
        loading: false,
      }));
    } catch (failure) {
      if (!signal.aborted) setState((before) => ({ page: before.page, error: toApiError(failure), loading: false }));
    }
  };

  useEffect(() => {
    const abort = new AbortController();
    present.current = abort.signal;
    void run(undefined, abort.signal);
    return () => {
      abort.abort();
    };
  }, [key, round]);

  const { page, error, loading } = state;
  return {
    items: page.items,
    error,
    loading,
    more: page.next !== null,
    loadMore: () => {
      if (!loading && page.next !== null && present.current !== undefined) void run(page.next, present.current);
    },
    reload: () => {
      setRound((before) => before + 1);
    },
  };
}
