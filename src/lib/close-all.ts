/** Closes one thing. */
export type Closer = () => unknown;

/**
 * Closes things in the reverse order of their making, and empties the list. What fails is told at the end, as an
 * AggregateError, after the rest has been closed too.
 */
export async function closeAll(closers: Closer[]): Promise<void> {
  const errors: unknown[] = [];
  for (const close of closers.splice(0).reverse()) {
    try {
      await close();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw new AggregateError(errors, "not everything could be closed");
}
