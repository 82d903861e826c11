import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api.ts";

/** What a view has loaded. While it loads again, what was there stays. */
export interface Loaded<T> {
  readonly data: T | undefined;
  readonly error: ApiError | undefined;
  readonly loading: boolean;
  readonly reload: () => void;
}

/** Loads when a view appears, and again when `key` changes; whatever is under way for an earlier key is aborted. */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ data?: T; error?: ApiError; loading: boolean }>({ loading: true });
  const [round, setRound] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const abort = new AbortController();
    setState((before) => ({ ...before, loading: true }));
    latest.current(abort.signal).then(
      (data) => {
        if (!abort.signal.aborted) setState({ data, loading: false });
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setState((before) => ({ ...before, error: toApiError(error), loading: false }));
      },
    );
    return () => {
      abort.abort();
    };
  }, [key, round]);
  return {
    data: state.data,
    error: state.error,
    loading: state.loading,
    reload: () => {
      setRound((before) => before + 1);
    },
  };
}

/** Any failure as one that can be shown. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(0, "panel_error", error instanceof Error ? error.message : String(error), "", null);
}
