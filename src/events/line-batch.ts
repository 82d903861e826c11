/** Lines on their way to a slow writer, which gets them many at a time. */
export interface LineBatch {
  write(line: string): void;
  /** Hands on what waits, now. */
  flush(): void;
}

/**
 * Gathers lines until there are `length` characters of them, or until the first has waited `ms`.
 * @param write takes whole lines, and is called from a timer as well: it must not throw
 */
export function createLineBatch(
  write: (lines: string) => void,
  { length, ms }: { readonly length: number; readonly ms: number },
): LineBatch {
  // A rope, which V8 makes flat once, when it is written.
  let lines = "";
  let timer: NodeJS.Timeout | undefined;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    const batch = lines;
    lines = "";
    if (batch !== "") write(batch);
  }

  return {
    write(line) {
      lines += line;
      if (lines.length >= length) flush();
      else timer ??= setTimeout(flush, ms).unref();
    },
    flush,
  };
}
