import { asIndex, emptyFields, EntryIndex, idOf, isFields, isNothing, UnmergeableError } from "./merge-fields.ts";
import type { Fields, Merge } from "./merge-fields.ts";

interface Call {
  readonly fields: Fields;
  index: number;
  /** Whether the provider gave the index; if not, it is the position among the calls. */
  indexed: boolean;
  /** Whether the arguments so far end in a brace: they may be complete. */
  closed: boolean;
  /** The list that had its last fragment. */
  list: unknown;
}

/**
 * The tool calls of one message. Fragments with the same index belong to one call, unless their ids differ: some
 * servers give every call the index 0. A fragment without an index is matched by its id. One with neither continues the
 * last call, unless it begins another: it has a function name and the last call is complete.
 */
export class ToolCalls {
  readonly #calls: Call[] = [];
  readonly #byFields = new Map<Fields, Call>();
  readonly #byId = new Map<string, Call>();
  readonly #entries = new EntryIndex();
  #last: Call | undefined;
  #nextIndex = 0;

  /** Takes the fragments of one delta. @throws UnmergeableError */
  add(fragments: readonly unknown[], merge: Merge): void {
    for (const fragment of fragments) {
      if (isNothing(fragment)) continue;
      if (!isFields(fragment)) throw new UnmergeableError("an item of tool_calls is not an object");
      const { index: given, ...rest } = fragment;
      const index = readIndex(given);
      const call = this.#find(index, rest, fragments) ?? this.#begin(index, merge);
      merge.appendFields(call.fields, rest);
      this.#remember(call, index, rest, fragments);
    }
  }

  /** In the order of their indices and without them, as in responses that aren't streamed. */
  list(): readonly Fields[] {
    return [...this.#calls].sort((a, b) => a.index - b.index).map(({ fields }) => fields);
  }

  #find(index: number | undefined, fragment: Fields, list: unknown): Call | undefined {
    const id = idOf(fragment);
    const call = index === undefined ? this.#findWithoutIndex(id, fragment) : this.#findAt(index, id, fragment);
    return call === undefined || beginsAnother(call, id, fragment, list) ? undefined : call;
  }

  #findAt(index: number, id: string, fragment: Fields): Call | undefined {
    const entry = this.#entries.find(index, fragment);
    if (entry !== undefined) return this.#byFields.get(entry);
    const same = this.#byId.get(id);
    return same?.indexed === false ? same : undefined;
  }

  #findWithoutIndex(id: string, fragment: Fields): Call | undefined {
    const last = this.#last;
    if (id === "" || last === undefined) return last;
    // An id may come late, but an id together with a name begins a new call.
    const isLate = idOf(last.fields) === "" && (nameOf(last.fields) === "" || nameOf(fragment) === "");
    return this.#byId.get(id) ?? (isLate ? last : undefined);
  }

  #begin(index: number | undefined, merge: Merge): Call {
    merge.count(8);
    const fields = emptyFields();
    const call = { fields, index: index ?? this.#nextIndex, indexed: false, closed: false, list: null };
    this.#calls.push(call);
    this.#byFields.set(fields, call);
    return call;
  }

  #remember(call: Call, index: number | undefined, fragment: Fields, list: unknown): void {
    if (index !== undefined && !call.indexed) {
      call.index = index;
      call.indexed = true;
    }
    this.#entries.set(call.index, call.fields);
    this.#nextIndex = Math.max(this.#nextIndex, call.index + 1);
    const id = idOf(call.fields);
    if (id !== "") this.#byId.set(id, call);
    const args = argumentsOf(fragment).trimEnd();
    if (args !== "") call.closed = args.endsWith("}");
    call.list = list;
    this.#last = call;
  }
}

/** Whether a fragment that matches a call by index or id begins a new one all the same. */
function beginsAnother(call: Call, id: string, fragment: Fields, list: unknown): boolean {
  const name = nameOf(fragment);
  const known = nameOf(call.fields);
  if (name === "" || known === "") return false;
  const sameId = id !== "" && id === idOf(call.fields);
  const startsAgain = call.list === list || (call.closed && argumentsOf(fragment).startsWith("{"));
  if (name === known) return !sameId && startsAgain;
  if (sameId || (call.list !== list && argumentsOf(call.fields) === "")) {
    throw new UnmergeableError("a tool call has two names");
  }
  return true;
}

/** Undefined for an index that is absent, null or empty. @throws UnmergeableError if it is not a whole number */
function readIndex(index: unknown): number | undefined {
  if (isNothing(index)) return undefined;
  const given = asIndex(index);
  if (given === undefined) throw new UnmergeableError("the index of a tool call is not a whole number");
  return given;
}

function nameOf(call: Readonly<Fields>): string {
  const { name } = bodyOf(call);
  return typeof name === "string" ? name : "";
}

function argumentsOf(call: Readonly<Fields>): string {
  const body = bodyOf(call);
  const args = body.arguments ?? body.input;
  if (isFields(args)) return "{}";
  return typeof args === "string" ? args : "";
}

/** The function, or the custom tool with free text as its input. */
function bodyOf(call: Readonly<Fields>): Readonly<Fields> {
  if (isFields(call.function)) return call.function;
  return isFields(call.custom) ? call.custom : {};
}
