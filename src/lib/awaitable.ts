/**
 * A value or a promise of it. Memory-backed ports return at once, without the cost of a promise; Redis-backed ones
 * return promises.
 */
export type Awaitable<T> = T | Promise<T>;
