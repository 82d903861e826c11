type Fields = Record<string, unknown>;

/** What is known so far of one choice. */
interface Choice {
  readonly message: Fields;
  readonly toolCalls: Map<number, Fields>;
  readonly rest: Fields;
  logprobs: Fields | null;
}

/** Fields of a delta that arrive whole; where they come again, they are said again, not continued. */
const wholeFields = new Set(["role", "id", "type", "name"]);

/**
 * Collects the chunks of a stream into the one JSON that the provider would have answered without streaming.
 *
 * - In a delta, strings are joined and arrays appended, also one object further down (`function_call`, `audio`);
 *   anything else, and `role`, `id`, `type` and `name`, is what was said last. Null says nothing: a field is null only
 *   if it was never more than that.
 * - Tool calls are told apart by their `index`; one without an index is a call of its own.
 * - `logprobs` lists are appended. Everything else on a choice or at the top, such as `finish_reason`, `usage`, `id`,
 *   is the last that was neither null nor "".
 *
 * Chunks of a wrong shape are skipped as far as they are wrong; nothing throws. Text is joined with `+=`, which V8
 * keeps as a rope: constant work and memory for each chunk, built once when it is read. Objects have no prototype, so
 * a key called `__proto__` is a key like any other.
 */
export class Collector {
  readonly #top = emptyFields();
  readonly #choices = new Map<number, Choice>();

  /** Takes the JSON of one data event. */
  add(chunk: unknown): void {
    if (!isFields(chunk)) return;
    for (const key of Object.keys(chunk)) {
      const value = chunk[key];
      if (key !== "choices") keepLast(this.#top, key, value);
      else if (Array.isArray(value)) {
        value.forEach((choice: unknown, position) => {
          this.#addChoice(choice, position);
        });
      }
    }
  }

  /** The answer as far as it has come, ready for JSON.stringify. More chunks may be added afterwards. */
  result(): Record<string, unknown> {
    const choices = inOrder(this.#choices).map(([index, choice]) => ({
      index,
      message: { ...choice.message, ...toolCallsOf(choice) },
      logprobs: choice.logprobs,
      finish_reason: null,
      ...choice.rest,
    }));
    return { ...this.#top, object: "chat.completion", choices };
  }

  #addChoice(choice: unknown, position: number): void {
    if (!isFields(choice)) return;
    const into = this.#choiceAt(asIndex(choice.index) ?? position);
    for (const key of Object.keys(choice)) {
      const value = choice[key];
      if (key === "delta") addDelta(into, value);
      else if (key === "logprobs") {
        if (isFields(value)) appendFields((into.logprobs ??= emptyFields()), value, 0);
      } else if (key !== "index" && key !== "message") keepLast(into.rest, key, value);
    }
  }

  #choiceAt(index: number): Choice {
    const known = this.#choices.get(index);
    if (known !== undefined) return known;
    const message = emptyFields({ role: "assistant", content: null });
    const choice: Choice = { message, toolCalls: new Map(), rest: emptyFields(), logprobs: null };
    this.#choices.set(index, choice);
    return choice;
  }
}

function addDelta(choice: Choice, delta: unknown): void {
  if (!isFields(delta)) return;
  const { tool_calls: toolCalls, ...fields } = delta;
  appendFields(choice.message, fields, 1);
  if (!Array.isArray(toolCalls)) return;
  for (const call of toolCalls as unknown[]) {
    if (!isFields(call)) continue;
    const { index: given, ...fragment } = call;
    const index = asIndex(given) ?? choice.toolCalls.size;
    const known = choice.toolCalls.get(index) ?? emptyFields();
    choice.toolCalls.set(index, known);
    appendFields(known, fragment, 1);
  }
}

/** Merges one fragment. `nested` is how many levels of objects further down are merged in the same way. */
function appendFields(into: Fields, fragment: Fields, nested: number): void {
  for (const key of Object.keys(fragment)) {
    const value = fragment[key];
    const known = into[key];
    if (typeof value === "string" && typeof known === "string" && !wholeFields.has(key)) into[key] = known + value;
    else if (Array.isArray(value) && Array.isArray(known)) for (const item of value as unknown[]) known.push(item);
    else if (nested > 0 && isFields(value)) {
      const inner = isFields(known) ? known : emptyFields();
      into[key] = inner;
      appendFields(inner, value, nested - 1);
    } else keepLast(into, key, Array.isArray(value) ? [...(value as unknown[])] : value);
  }
}

/** Sets a field unless the value says nothing and something was said before. */
function keepLast(into: Fields, key: string, value: unknown): void {
  const saysSomething = value !== null && value !== "";
  if (saysSomething || into[key] === undefined || into[key] === null) into[key] = value;
}

function toolCallsOf(choice: Choice): Fields {
  if (choice.toolCalls.size === 0) return {};
  return { tool_calls: inOrder(choice.toolCalls).map(([, call]) => call) };
}

function inOrder<T>(byIndex: ReadonlyMap<number, T>): [number, T][] {
  return [...byIndex].sort(([a], [b]) => a - b);
}

function asIndex(value: unknown): number | undefined {
  return Number.isSafeInteger(value) ? (value as number) : undefined;
}

function emptyFields(first: Fields = {}): Fields {
  return Object.assign(Object.create(null) as Fields, first);
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
