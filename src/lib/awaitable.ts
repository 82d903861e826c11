/**
 * A value or a promise of it. Memory-backed ports return at once, without the cost of a promise; Redis-backed ones
 * return promises.
 */
export type Awaitable<T> = T | Promise<T>;

/** The result of a call, at once where the call answers at once; that of `onError` if it throws or rejects. */
export function orElse<T, E>(call: () => Awaitable<T>, onError: (error: unknown) => E): Awaitable<T | E> {
  try {
    const result = call();
    return result instanceof Promise ? result.catch(onError) : result;
  } catch (error) {
    return onError(error);
  }
}
