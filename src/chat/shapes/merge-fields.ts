/** Fields that grow while an answer is collected. */
export type Fields = Record<string, unknown>;

/** Fields that arrive whole; where they come again, they are said again, not continued. */
const wholeFields = new Set(["role", "id", "type", "name"]);

/**
 * Merges one fragment: strings are joined and arrays appended, also `nested` objects further down; anything else, and
 * `role`, `id`, `type` and `name`, is what was said last. Null says nothing: a field is null only if it was never more
 * than that. Text is joined with `+=`, which V8 keeps as a rope: constant work and memory for each fragment, built once
 * when it is read.
 */
export function appendFields(into: Fields, fragment: Readonly<Fields>, nested: number): void {
  for (const key in fragment) appendField(into, key, fragment[key], nested);
}

export function appendField(into: Fields, key: string, value: unknown, nested: number): void {
  if (typeof value === "string") {
    const known = into[key];
    if (typeof known === "string" && !wholeFields.has(key)) into[key] = known + value;
    else keepLast(into, key, value);
    return;
  }
  // Nothing was ever said: the most frequent case but text, and it changes nothing.
  if (value === null) {
    if (into[key] === undefined) into[key] = null;
    return;
  }
  const known = into[key];
  if (Array.isArray(value)) {
    if (Array.isArray(known)) for (const item of value as unknown[]) known.push(item);
    else into[key] = [...(value as unknown[])];
  } else if (nested > 0 && isFields(value)) {
    const inner = isFields(known) ? known : emptyFields();
    into[key] = inner;
    appendFields(inner, value, nested - 1);
  } else keepLast(into, key, value);
}

/** Sets a field unless the value says nothing and something was said before. */
export function keepLast(into: Fields, key: string, value: unknown): void {
  const known = into[key];
  if (known === value) return;
  const saysSomething = value !== null && value !== "";
  if (saysSomething || known === undefined || known === null) into[key] = value;
}

/** Without a prototype, so that a key called `__proto__` is a key like any other. */
export function emptyFields(first: Fields = {}): Fields {
  return Object.assign(Object.create(null) as Fields, first);
}

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function asIndex(value: unknown): number | undefined {
  return Number.isSafeInteger(value) ? (value as number) : undefined;
}

export function inOrder<T>(byIndex: ReadonlyMap<number, T>): [number, T][] {
  return [...byIndex].sort(([a], [b]) => a - b);
}
