/** Tries until the assertion holds; fails with its own error after `waitMs`. */
export async function eventually(assertion: () => void | Promise<void>, waitMs = 10_000): Promise<void> {
  const start = performance.now();
  for (;;) {
    try {
      await assertion();
      return;
    } catch (error) {
      const waited = performance.now() - start;
      if (waited > waitMs) throw error;
      // What takes long is asked for less often: each try costs the two cores that what is waited for needs as well.
      await new Promise((resolve) => setTimeout(resolve, Math.min(5 + waited / 20, 100)));
    }
  }
}
