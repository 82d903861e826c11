/** Tries until the assertion holds; fails with its own error after `waitMs`. */
export async function eventually(assertion: () => void | Promise<void>, waitMs = 10_000): Promise<void> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    try {
      await assertion();
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}
