/** Closes one resource. */
export type Closer = () => unknown;

/**
 * Closes resources in reverse order of creation, and empties the list. Errors are thrown at the end, as an
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
