/** A value now, or later. Memory-backed ports answer at once and cost no promise; Redis-backed ones answer later. */
export type Awaitable<T> = T | Promise<T>;
