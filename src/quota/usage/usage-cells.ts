import { outcomes } from "../outcomes.ts";
import type { ExportedRow } from "./usage-export.ts";
import { modelOf, tallyOf } from "./recorded-usage.ts";
import type { UsageTally } from "./usage-row.ts";

/** Who used something: ids of names. */
export interface Owner {
  readonly user: number;
  readonly group: number;
  readonly key: number;
}

/** What was used, and how it ended. */
export interface Kind {
  readonly model: number;
  readonly provider: number;
  /** Place in `outcomes`. */
  readonly outcome: number;
  readonly currency: number;
}

/** Settled requests of one hour, owner and kind are one cell; some hours have several, which are summed when read. */
export interface CellChunk {
  /** Cells in use. */
  length: number;
  /** The latest charge in it, in ms. */
  newest: number;
  readonly hours: Uint16Array;
  readonly owners: Uint32Array;
  readonly kinds: Uint16Array;
  readonly chats: Uint32Array;
  readonly requests: Uint32Array;
  readonly tokens: Uint32Array;
  readonly input: Uint32Array;
  readonly cached: Uint32Array;
  readonly output: Uint32Array;
  readonly reasoning: Uint32Array;
  readonly estimated: Uint32Array;
  readonly cost: Float64Array;
}

/** What is no settled request, or too large for a cell. */
export interface OddCell {
  /** Time of the charge, in ms. */
  readonly at: number;
  readonly hour: number;
  readonly owner: number;
  readonly kind: number;
  readonly tally: UsageTally;
}

const chunkLength = 1 << 14;
const maxNumber = 0xffff_ffff;
const maxHours = 1 << 16;
const maxOwners = 1 << 20;
const maxKinds = 1 << 13;
const maxOdd = 20_000;
/** Cells that may still be added to; the others are complete but for late ends. */
const maxOpen = 1 << 17;

/** Thrown where there are more names than cells can have. */
export class TooVaried extends Error {
  override readonly name = "TooVaried";
}

/** Gives names numbers, from 0. */
class Names {
  readonly #ids = new Map<string, number>();
  readonly #names: string[] = [];
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#names.length;
  }

  of(name: string): number {
    let id = this.#ids.get(name);
    if (id === undefined) {
      id = this.#names.length;
      if (id >= this.#max) throw new TooVaried();
      this.#ids.set(name, id);
      this.#names.push(name);
    }
    return id;
  }

  nameOf(id: number): string {
    return this.#names[id] ?? "";
  }

  /** The number of a name that is known. */
  find(name: string): number | undefined {
    return this.#ids.get(name);
  }
}

/**
 * Usage by hour, user, group, API key, model, provider and outcome, in columns of numbers: 48 bytes a cell. A million
 * cells are looked through in some 50 ms.
 */
export class UsageCells {
  readonly names = new Names(maxOwners);
  readonly hours = new Names(maxHours);
  readonly owners: Owner[] = [];
  readonly kinds: Kind[] = [];
  readonly odd: OddCell[] = [];
  readonly #byUser: boolean;
  readonly #maxChunks: number;
  readonly #ownerIds = new Map<string, number>();
  readonly #kindIds = new Map<string, number>();
  /** Place in the newest chunk by hour, owner and kind. */
  readonly #open = new Map<number, number>();
  #chunks: CellChunk[] = [];
  /** What was charged earlier is not here any more, in ms. */
  #completeFrom = -Infinity;

  /**
   * @param byUser whether each user and API key has cells of its own
   * @param maxCells beyond which the oldest are forgotten
   */
  constructor(byUser: boolean, maxCells: number) {
    this.#byUser = byUser;
    this.#maxChunks = Math.max(2, Math.ceil(maxCells / chunkLength));
  }

  get completeFrom(): number {
    return this.#completeFrom;
  }

  get cells(): number {
    return this.#chunks.reduce((sum, { length }) => sum + length, 0);
  }

  /** The chunks as they are: no cell of them is changed any more. */
  freeze(): readonly { readonly chunk: CellChunk; readonly length: number }[] {
    this.#open.clear();
    return this.#chunks.map((chunk) => ({ chunk, length: chunk.length }));
  }

  /** @param hour its name */
  add(row: ExportedRow, hour: string): void {
    const outcome = outcomes.findIndex((one) => one === row.outcome);
    const hourId = this.hours.of(hour);
    const owner = this.#ownerOf(row);
    const kind = this.#kindOf(row, outcome);
    if (row.kind === "request" && outcome >= 0 && this.#count(row, hourId, owner, kind)) return;
    if (this.odd.length >= maxOdd) {
      const oldest = this.odd.splice(0, maxOdd / 10);
      this.#completeFrom = Math.max(this.#completeFrom, ...oldest.map(({ at }) => at + 1));
    }
    this.odd.push({ at: row.at, hour: hourId, owner, kind, tally: tallyOf(row) });
  }

  /** A row that is not kept, as a cell of its own. */
  asOdd(row: ExportedRow, hour: string): OddCell {
    const ids = { hour: this.hours.of(hour), owner: this.#ownerOf(row), kind: this.#kindOf(row, -1) };
    return { at: row.at, ...ids, tally: tallyOf(row) };
  }

  #ownerOf({ user, group, apiKey }: ExportedRow): number {
    const whose = this.#byUser ? { user, key: apiKey } : { user: "", key: "" };
    const name = `${whose.user}\n${group}\n${whose.key}`;
    let id = this.#ownerIds.get(name);
    if (id === undefined) {
      id = this.owners.length;
      if (id >= maxOwners) throw new TooVaried();
      this.owners.push({
        user: this.names.of(whose.user),
        group: this.names.of(group),
        key: this.names.of(whose.key),
      });
      this.#ownerIds.set(name, id);
    }
    return id;
  }

  #kindOf(row: ExportedRow, outcome: number): number {
    const model = modelOf(row);
    const name = `${model}\n${row.provider}\n${outcome}\n${row.currency}`;
    let id = this.#kindIds.get(name);
    if (id === undefined) {
      id = this.kinds.length;
      if (id >= maxKinds) throw new TooVaried();
      const ids = { model: this.names.of(model), provider: this.names.of(row.provider) };
      this.kinds.push({ ...ids, outcome, currency: this.names.of(row.currency) });
      this.#kindIds.set(name, id);
    }
    return id;
  }

  /** Whether it fits into a cell. */
  #count(row: ExportedRow, hour: number, owner: number, kind: number): boolean {
    const { requests, tokens, cost, usage, estimated, at } = row;
    const largest = Math.max(requests, tokens, usage.input, usage.cached, usage.output, usage.reasoning);
    if (largest > maxNumber || Math.min(requests, tokens, cost) < 0) return false;
    const place = (hour * maxOwners + owner) * maxKinds + kind;
    let chunk = this.#chunks.at(-1);
    let index = this.#open.get(place);
    if (chunk === undefined || index === undefined || !hasRoom(chunk, index, row)) {
      if (chunk === undefined || chunk.length === chunkLength) chunk = this.#newChunk();
      index = chunk.length++;
      chunk.hours[index] = hour;
      chunk.owners[index] = owner;
      chunk.kinds[index] = kind;
      if (this.#open.size >= maxOpen) this.#open.clear();
      this.#open.set(place, index);
    }
    chunk.newest = Math.max(chunk.newest, at);
    increase(chunk.chats, index, 1);
    increase(chunk.requests, index, requests);
    increase(chunk.tokens, index, tokens);
    increase(chunk.input, index, usage.input);
    increase(chunk.cached, index, usage.cached);
    increase(chunk.output, index, usage.output);
    increase(chunk.reasoning, index, usage.reasoning);
    increase(chunk.estimated, index, estimated ? 1 : 0);
    increase(chunk.cost, index, cost);
    return true;
  }

  #newChunk(): CellChunk {
    this.#open.clear();
    if (this.#chunks.length >= this.#maxChunks) {
      const [oldest] = this.#chunks;
      this.#chunks = this.#chunks.slice(1);
      this.#completeFrom = Math.max(this.#completeFrom, (oldest?.newest ?? 0) + 1);
    }
    const numbers = (): Uint32Array => new Uint32Array(chunkLength);
    const chunk: CellChunk = {
      length: 0,
      newest: -Infinity,
      hours: new Uint16Array(chunkLength),
      owners: numbers(),
      kinds: new Uint16Array(chunkLength),
      chats: numbers(),
      requests: numbers(),
      tokens: numbers(),
      input: numbers(),
      cached: numbers(),
      output: numbers(),
      reasoning: numbers(),
      estimated: numbers(),
      cost: new Float64Array(chunkLength),
    };
    this.#chunks.push(chunk);
    return chunk;
  }
}

/** Whether a cell can be added to without a column that runs over. */
function hasRoom(chunk: CellChunk, index: number, { requests, tokens, cost, usage }: ExportedRow): boolean {
  const fits = (column: Uint32Array, more: number): boolean => (column[index] ?? 0) + more <= maxNumber;
  return (
    fits(chunk.requests, requests) &&
    fits(chunk.tokens, tokens) &&
    fits(chunk.input, usage.input) &&
    fits(chunk.cached, usage.cached) &&
    fits(chunk.output, usage.output) &&
    fits(chunk.reasoning, usage.reasoning) &&
    (chunk.cost[index] ?? 0) + cost <= Number.MAX_SAFE_INTEGER
  );
}

function increase(column: Uint32Array | Float64Array, index: number, by: number): void {
  column[index] = (column[index] ?? 0) + by;
}
