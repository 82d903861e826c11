/** Fields that are filled while a response is collected. */
export type Fields = Record<string, unknown>;

/** The fragments don't fit together. The message names fields and kinds of values, never text of the response. */
export class UnmergeableError extends Error {
  override readonly name = "UnmergeableError";
}

/** Fields that arrive whole; if one comes again, it is a repetition, not a continuation. */
const wholeFields: ReadonlySet<string> = new Set(["role", "id", "type", "name", "format"]);
/** An item without an index that has one of these fields is continued by the next item of its type. */
const textFields: ReadonlySet<string> = new Set([
  "text",
  "thinking",
  "signature",
  "reasoning",
  "reasoning_content",
  "refusal",
  "summary",
  "content",
]);
/** Most values (objects, lists and their items) in one response; each takes up to 100 bytes of memory. */
const maxValues = 1_000_000;
/** Deepest nesting of objects and lists. */
const maxDepth = 64;

/**
 * Merges the fragments of one response: texts are joined, lists appended, objects merged field by field; of `role`,
 * `id`, `type`, `name` and `format` the last value counts. Null and empty values are ignored. A value is never replaced
 * by one of another kind: a text next to a list becomes one of its parts, and anything else throws.
 *
 * Values are copied, so that fragments are never changed. Text is joined with `+=`, which V8 keeps as a rope: constant
 * work and memory for each fragment, flattened once when it is read.
 */
export class Merge {
  #values = 0;

  /** Counts the values kept besides text. @throws UnmergeableError if there are more than any response has */
  count(values: number): void {
    this.#values += values;
    if (this.#values > maxValues) throw new UnmergeableError("the response has more than a million values");
  }

  /** @throws UnmergeableError */
  appendFields(into: Fields, fragment: Readonly<Fields>, depth = 0): void {
    for (const key in fragment) this.append(into, key, fragment[key], depth);
  }

  /** @throws UnmergeableError */
  append(into: Fields, key: string, value: unknown, depth = 0): void {
    const known = into[key];
    // Text appended to text: nearly every fragment.
    if (typeof value === "string" && typeof known === "string" && known !== "") {
      if (!wholeFields.has(key)) into[key] = known + value;
      else if (value !== "") into[key] = value;
      return;
    }
    if (isNothing(value)) {
      if (known === undefined || known === null) into[key] = this.#copy(value, depth);
    } else if (isNothing(known)) {
      if (known === undefined) this.count(1);
      into[key] = this.#copy(value, depth);
    } else into[key] = this.#joined(key, known, value, depth);
  }

  /** Sets a field that each event repeats in full. A null or empty value does not replace an earlier one. */
  keepLast(into: Fields, key: string, value: unknown): void {
    const known = into[key];
    if (known === value || (isNothing(value) && known !== undefined && known !== null)) return;
    this.count(valuesIn(value, 0) - (known === undefined ? 0 : valuesIn(known, 0)));
    into[key] = value;
  }

  #joined(key: string, known: unknown, value: unknown, depth: number): unknown {
    if (known instanceof MergedList) {
      if (Array.isArray(value)) known.addAll(value, this, depth + 1);
      else if (typeof value === "string") known.addText(value, key, this);
      else throw cannotJoin(key, known, value);
      return known;
    }
    if (typeof known === "string" && Array.isArray(value)) {
      const list = new MergedList();
      // A list of texts takes a text as an item; a list of numbers can't.
      if (typeof value[0] === "string") list.addAll([known], this, depth + 1);
      else if (isFields(value[0])) list.addText(known, key, this);
      else throw cannotJoin(key, known, value);
      list.addAll(value, this, depth + 1);
      return list;
    }
    if (isFields(known) && isFields(value)) {
      if (depth >= maxDepth) throw tooDeep();
      this.appendFields(known, value, depth + 1);
      return known;
    }
    if (typeof known !== typeof value || typeof value === "object") throw cannotJoin(key, known, value);
    return value;
  }

  /** A copy that can be extended. */
  #copy(value: unknown, depth: number): unknown {
    if (typeof value !== "object" || value === null) return value;
    if (depth >= maxDepth) throw tooDeep();
    if (Array.isArray(value)) {
      const list = new MergedList();
      list.addAll(value, this, depth + 1);
      return list;
    }
    const fields = emptyFields();
    this.appendFields(fields, value as Fields, depth + 1);
    return fields;
  }

  /** Appends an item to a list; earlier items are never changed. */
  appendItem(into: Fields, key: string, item: unknown): void {
    const list = into[key] instanceof MergedList ? into[key] : new MergedList();
    into[key] = list;
    list.push(this.copyItem(item, 0));
  }

  /** A copy of a list's item. */
  copyItem(item: unknown, depth: number): unknown {
    this.count(1);
    return this.#copy(item, depth);
  }
}

/**
 * A list that is being collected. Objects with an `index` are merged by it if their `type` is the same. A part without
 * an index continues the last part of the previous list if both are text of one type. Everything else is appended.
 */
class MergedList {
  readonly #items: unknown[] = [];
  #entries: EntryIndex | null = null;

  get length(): number {
    return this.#items.length;
  }

  /** @throws UnmergeableError */
  addAll(items: readonly unknown[], merge: Merge, depth: number): void {
    for (let i = 0; i < items.length; i++) {
      const item = items[i];
      const known = isFields(item) ? this.#find(item, i === 0) : undefined;
      if (known === undefined) this.push(merge.copyItem(item, depth));
      else merge.appendFields(known, item as Fields, depth);
    }
  }

  /** Appends text to the text before it, or as a new part. */
  addText(text: string, key: string, merge: Merge): void {
    const last = this.#items.at(-1);
    if (isFields(last) && last.type === "text" && typeof last.text === "string") last.text += text;
    else if (last === undefined || isFields(last)) this.push(merge.copyItem({ type: "text", text }, 0));
    else if (typeof last === "string") this.push(merge.copyItem(text, 0));
    else throw cannotJoin(key, last, text);
  }

  /** Items with an index in the order of their indices, all others in order of arrival. */
  toJSON(): readonly unknown[] {
    const indices = this.#items.map((item) => (isFields(item) ? asIndex(item.index) : undefined));
    if (indices.includes(undefined)) return this.#items;
    return [...(this.#items as Fields[])].sort((a, b) => Number(a.index) - Number(b.index));
  }

  push(item: unknown): void {
    this.#items.push(item);
    const index = isFields(item) ? asIndex(item.index) : undefined;
    if (index !== undefined) (this.#entries ??= new EntryIndex()).set(index, item as Fields);
  }

  #find(item: Fields, isFirst: boolean): Fields | undefined {
    const index = asIndex(item.index);
    if (index !== undefined) {
      const entry = this.#entries?.find(index, item);
      // The id may come with a later fragment.
      if (entry !== undefined) this.#entries?.set(index, entry, item);
      return entry;
    }
    const last = isFirst ? this.#items.at(-1) : undefined;
    return isFields(last) && goesOn(last, item) ? last : undefined;
  }
}

/**
 * Finds the entry that a fragment with an index continues: the last one at the index whose id and type don't
 * contradict.
 */
export class EntryIndex {
  readonly #entries = new Map<string, Fields>();

  find(index: number, fragment: Readonly<Fields>): Fields | undefined {
    const id = idOf(fragment);
    const type = typeOf(fragment);
    if (id !== "") {
      const same = this.#entries.get(`${index} id ${id}`);
      if (same !== undefined && (type === "" || typeOf(same) === type)) return same;
    }
    const last = this.#entries.get(`${index}`);
    const entry = type === "" ? last : (this.#entries.get(`${index} type ${type}`) ?? untyped(last));
    return entry === undefined || (id !== "" && idOf(entry) !== "") ? undefined : entry;
  }

  /** @param fragment what is about to be merged into the entry */
  set(index: number, entry: Fields, fragment: Readonly<Fields> = entry): void {
    const id = idOf(fragment);
    const type = typeOf(fragment) === "" ? typeOf(entry) : typeOf(fragment);
    this.#entries.set(`${index}`, entry);
    if (type !== "") this.#entries.set(`${index} type ${type}`, entry);
    if (id !== "") this.#entries.set(`${index} id ${id}`, entry);
  }
}

/** The id of an entry; "" if it has none. */
export function idOf({ id }: Readonly<Fields>): string {
  return typeof id === "string" || typeof id === "number" ? String(id) : "";
}

function typeOf({ type }: Readonly<Fields>): string {
  return typeof type === "string" ? type : "";
}

function untyped(entry: Fields | undefined): Fields | undefined {
  return entry === undefined || typeOf(entry) !== "" ? undefined : entry;
}

/** Whether a part only has more text for the previous one, and nothing of its own. */
function goesOn(last: Fields, item: Fields): boolean {
  if (asIndex(last.index) !== undefined || typeOf(last) !== typeOf(item)) return false;
  let hasText = false;
  for (const key in item) {
    const value = item[key];
    if (textFields.has(key) && (typeof value === "string" || Array.isArray(value))) hasText = true;
    else if (typeof value !== "boolean" && value !== last[key] && !isNothing(value)) return false;
  }
  return hasText;
}

/** Has no prototype, so that `__proto__` is a key like any other. */
export function emptyFields(first: Fields = {}): Fields {
  return Object.assign(Object.create(null) as Fields, first);
}

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof MergedList);
}

/** Whether a value is absent, null or empty. */
export function isNothing(value: unknown): boolean {
  if (value === undefined || value === null || value === "") return true;
  if (typeof value !== "object") return false;
  if (Array.isArray(value) || value instanceof MergedList) return value.length === 0;
  for (const _key in value) return false;
  return true;
}

export function asIndex(value: unknown): number | undefined {
  return Number.isSafeInteger(value) ? (value as number) : undefined;
}

export function inOrder<T>(byIndex: ReadonlyMap<number, T>): [number, T][] {
  return [...byIndex].sort(([a], [b]) => a - b);
}

/** An object as JSON, followed by members that are JSON already. */
export function jsonOf(fields: Readonly<Fields>, ...members: readonly string[]): string {
  const json = JSON.stringify(fields);
  return json === "{}" ? `{${members.join(",")}}` : [json.slice(0, -1), ...members].join(",") + "}";
}

/** An object's fields; null if the value is absent, null or empty. @throws UnmergeableError for anything else */
export function fieldsOf(what: string, value: unknown): Fields | null {
  if (isFields(value)) return value;
  if (isNothing(value)) return null;
  throw new UnmergeableError(`${what} is ${kindOf(value)}, not an object`);
}

/** A list's items; none if the value is absent, null or empty. @throws UnmergeableError for anything else */
export function itemsOf(what: string, value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  if (isNothing(value)) return [];
  throw new UnmergeableError(`${what} is ${kindOf(value)}, not a list`);
}

function valuesIn(value: unknown, depth: number): number {
  if (typeof value !== "object" || value === null) return 1;
  if (depth >= maxDepth) throw tooDeep();
  let values = 1;
  if (Array.isArray(value)) for (const item of value as unknown[]) values += valuesIn(item, depth + 1);
  else for (const key in value) values += valuesIn((value as Fields)[key], depth + 1);
  return values;
}

function cannotJoin(key: string, known: unknown, value: unknown): UnmergeableError {
  return new UnmergeableError(`${key.slice(0, 100)} is ${kindOf(known)}, then ${kindOf(value)}`);
}

function tooDeep(): UnmergeableError {
  return new UnmergeableError("the response is nested too deeply");
}

function kindOf(value: unknown): string {
  if (Array.isArray(value) || value instanceof MergedList) return "a list";
  if (value === null) return "null";
  return { string: "a text", object: "an object" }[typeof value as string] ?? `a ${typeof value}`;
}
