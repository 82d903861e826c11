import { asIndex, emptyFields, EntryIndex, idOf, isFields, isNothing, UnmergeableError } from "./merge-fields.ts";
import type { Fields, Merge } from "./merge-fields.ts";

interface Call {
  readonly fields: Fields;
  index: number;
  /** Whether the provider gave the index; else it is the place among the calls. */
  indexed: boolean;
  /** Whether the arguments so far end in a brace: they may be complete. */
  closed: boolean;
  /** The list in which it was last spoken of. */
  list: unknown;
}

/**
 * The tool calls of one message. Fragments with the same index are one call, unless they have another id: some servers
 * number all calls 0. A fragment that has only an id is told by that, and one that has neither goes on with the last
 * call, unless it begins another: it brings a function's name where there is a whole call already.
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

  /** In the order of their indices, without them, as answers that aren't streamed have them. */
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
    // An id may come late, but a name with it makes a call of its own.
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

/** Whether a fragment that nothing else tells from a call begins one of its own. */
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

/** An index that is null or empty is none. @throws UnmergeableError where it is something else */
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

/** What is called: a function, or a tool with free text as its input. */
function bodyOf(call: Readonly<Fields>): Readonly<Fields> {
  if (isFields(call.function)) return call.function;
  return isFields(call.custom) ? call.custom : {};
}
