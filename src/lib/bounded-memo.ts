/**
 * Remembers what `compute` has made for up to `max` keys; past that the oldest is forgotten and made anew when asked
 * for again. For keys that come from outside, of which there may be any number.
 */
export function boundedMemo<V extends object | number>(max: number, compute: (key: string) => V): (key: string) => V {
  const known = new Map<string, V>();
  return (key) => {
    const found = known.get(key);
    if (found !== undefined) return found;
    const made = compute(key);
    if (known.size >= max) {
      for (const oldest of known.keys()) {
        known.delete(oldest);
        break;
      }
    }
    known.set(key, made);
    return made;
  };
}
