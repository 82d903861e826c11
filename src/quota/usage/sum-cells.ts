import { setImmediate as nextTurn } from "node:timers/promises";
import type { UsageSpan } from "../ledger.ts";
import { outcomes } from "../outcomes.ts";
import type { CellChunk, OddCell, UsageCells } from "./usage-cells.ts";
import { isTime, maxSums, TooManyRows, type UsageLine, type UsageSubject } from "./usage-queries.ts";
import { addRow, emptyRow, type UsageTally } from "./usage-row.ts";

/** What is to be summed. */
export interface SumQuery extends UsageSpan {
  readonly user?: string | undefined;
  readonly by: readonly UsageSubject[];
  /** So many with the most tokens have rows of their own; all others have one together, at each time. */
  readonly top?: number | undefined;
}

/** Cells that are looked through in one turn of the event loop, at the most: a few ms. */
const cellsPerTurn = 1 << 14;
/** Names that are looked at in one turn: a few ms as well. */
const namesPerTurn = 1 << 12;
/** Places that a table of numbers has; beyond, a map is smaller. */
const maxTable = 1 << 22;

/** Columns of a sum: these, then the outcomes, then the cost by currency. */
const sumColumns = ["requests", "tokens", "input", "cached", "output", "reasoning", "estimated"] as const;
const costsAt = sumColumns.length + outcomes.length;

/**
 * Sums cells by some subjects, ordered by their names. They are looked through in slices: meanwhile others may be added,
 * which don't count.
 *
 * @param unsettled cells beside those that are kept
 * @throws TooManyRows
 */
export async function sumCells(
  cells: UsageCells,
  query: SumQuery,
  unsettled: readonly OddCell[],
): Promise<readonly UsageLine[]> {
  const chunks = cells.freeze();
  const odd = [...cells.odd, ...unsettled];
  const axes = createAxes(cells, query);
  const ranking = await rank({ chunks, odd }, axes, query);
  const sums = createSums(axes, ranking.places);
  await forEachSlice(chunks, (chunk, from, to) => {
    sums.addCells(chunk, { from, to }, ranking.placeOf);
  });
  for (const cell of odd) sums.addOdd(cell, ranking.placeOf);
  return sums.lines(query.by, ranking);
}

async function forEachSlice(
  chunks: ReturnType<UsageCells["freeze"]>,
  work: (chunk: CellChunk, from: number, to: number) => void,
): Promise<void> {
  for (const { chunk, length } of chunks) {
    for (let from = 0; from < length; from += cellsPerTurn) {
      work(chunk, from, Math.min(length, from + cellsPerTurn));
      await nextTurn();
    }
  }
}

/** Where each cell belongs: a time, and a part, which is a combination of names. */
interface Axes {
  readonly cells: UsageCells;
  readonly times: readonly string[];
  /** By hour; -1: not asked for. */
  readonly timeOf: Int32Array;
  readonly parts: number;
  /** By owner, to be added to that of the kind; -1: not asked for. */
  readonly ownerPart: Int32Array;
  readonly kindPart: Int32Array;
  /** The names of a part. */
  readonly namesOf: (part: number) => Readonly<Partial<Record<UsageSubject, string>>>;
}

function createAxes(cells: UsageCells, { from, to, user, by }: SumQuery): Axes {
  const { names, hours } = cells;
  const times = new Map<string, number>();
  const timeOf = new Int32Array(hours.size);
  for (let hour = 0; hour < timeOf.length; hour++) {
    const name = hours.nameOf(hour);
    const day = name.slice(0, 10);
    timeOf[hour] = day < from || day > to ? -1 : numberOf(times, timeName(name, by));
  }
  const userId = user === undefined ? undefined : (names.find(user) ?? -1);
  const ownerSubjects = (["user", "group", "key"] as const).filter((one) => by.includes(one));
  const kindSubjects = (["model", "provider"] as const).filter((one) => by.includes(one));
  const owners = new Map<string, number>();
  const kinds = new Map<string, number>();
  const ownerPart = Int32Array.from(cells.owners, (owner) =>
    userId !== undefined && owner.user !== userId
      ? -1
      : numberOf(owners, ownerSubjects.map((subject) => owner[subject]).join(" ")),
  );
  const kindPart = Int32Array.from(cells.kinds, (kind) =>
    numberOf(kinds, kindSubjects.map((subject) => kind[subject]).join(" ")),
  );
  const [ownerNames, kindNames] = [[...owners.keys()], [...kinds.keys()]];
  for (let owner = 0; owner < ownerPart.length; owner++) {
    const part = ownerPart[owner] ?? -1;
    if (part > 0) ownerPart[owner] = part * kinds.size;
  }
  const named = (subjects: readonly UsageSubject[], ids = ""): (readonly [UsageSubject, string])[] =>
    subjects.map((subject, index) => [subject, names.nameOf(Number(ids.split(" ")[index]))]);
  return {
    cells,
    times: [...times.keys()],
    timeOf,
    ownerPart,
    kindPart,
    parts: owners.size * kinds.size,
    namesOf: (part) =>
      Object.fromEntries([
        ...named(ownerSubjects, ownerNames[Math.floor(part / kinds.size)]),
        ...named(kindSubjects, kindNames[part % kinds.size]),
      ]),
  };
}

function timeName(hour: string, by: readonly UsageSubject[]): string {
  if (by.includes("hour")) return hour;
  if (by.includes("day")) return hour.slice(0, 10);
  return by.includes("month") ? hour.slice(0, 7) : "";
}

function numberOf(numbers: Map<string, number>, name: string): number {
  let number = numbers.get(name);
  if (number === undefined) numbers.set(name, (number = numbers.size));
  return number;
}

/** Which parts have rows of their own. */
interface Ranking {
  /** The place of a part among the rows of one time. */
  readonly placeOf: (part: number) => number;
  readonly places: number;
  /** The part at a place; undefined: all others. */
  readonly partAt: (place: number) => number | undefined;
  /** How many others there are. */
  readonly others: number;
}

async function rank(
  { chunks, odd }: { readonly chunks: ReturnType<UsageCells["freeze"]>; readonly odd: readonly OddCell[] },
  axes: Axes,
  { top, by }: SumQuery,
): Promise<Ranking> {
  const { parts, timeOf, ownerPart, kindPart } = axes;
  const all: Ranking = { placeOf: (part) => part, places: parts, partAt: (place) => place, others: 0 };
  if (top === undefined) return all;
  const tokens = createTable(parts);
  await forEachSlice(chunks, (chunk, from, to) => {
    for (let index = from; index < to; index++) {
      const owner = ownerPart[chunk.owners[index] ?? 0] ?? -1;
      if (owner < 0 || (timeOf[chunk.hours[index] ?? 0] ?? -1) < 0) continue;
      const part = owner + (kindPart[chunk.kinds[index] ?? 0] ?? 0);
      // One more than there are, so that 0 says that nothing was found.
      tokens.set(part, (tokens.get(part) || 1) + (chunk.tokens[index] ?? 0));
    }
  });
  for (const { hour, owner, kind, tally } of odd) {
    const part = (ownerPart[owner] ?? -1) + (kindPart[kind] ?? 0);
    if ((ownerPart[owner] ?? -1) >= 0 && (timeOf[hour] ?? -1) >= 0)
      tokens.set(part, (tokens.get(part) || 1) + tally.tokens);
  }
  const { at, numbers } = tokens.found();
  if (at.length <= top) return all;
  const least = numbers.slice().sort()[at.length - top] ?? 0;
  const kept: number[] = [];
  const equal: number[] = [];
  for (const [index, ofPart] of numbers.entries())
    if (ofPart >= least) (ofPart > least ? kept : equal).push(at[index] ?? 0);
  // Names decide only among those with as many tokens as the last one: most may have the same.
  kept.push(...(await firstByName(equal, top - kept.length, (part) => nameOfAll(axes.namesOf(part), by))));
  const places = createTable(parts);
  for (const [index, part] of kept.entries()) places.set(part, index + 1);
  return {
    placeOf: (part) => places.get(part),
    places: top + 1,
    partAt: (place) => kept[place - 1],
    others: at.length - top,
  };
}

/** Of many parts those few that come first by their names. */
async function firstByName(
  parts: readonly number[],
  count: number,
  nameOf: (part: number) => string,
): Promise<readonly number[]> {
  let first: (readonly [name: string, part: number])[] = [];
  /** Names behind it are none of the first. */
  let last: string | undefined;
  for (let from = 0; from < parts.length; from += namesPerTurn) {
    for (const part of parts.slice(from, from + namesPerTurn)) {
      const name = nameOf(part);
      if (last === undefined || name < last) first.push([name, part]);
    }
    first = first.sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, count);
    if (first.length === count) last = first.at(-1)?.[0];
    await nextTurn();
  }
  return first.map(([, part]) => part);
}

function nameOfAll(names: ReturnType<Axes["namesOf"]>, by: readonly UsageSubject[]): string {
  return by
    .filter((subject) => !isTime(subject))
    .map((subject) => names[subject] ?? "")
    .join("\n");
}

function* placesIn(table: Float64Array): Generator<number> {
  for (let place = 0; place < table.length; place++) if (table[place] !== 0) yield place;
}

/** Numbers by place; 0 where none was set. `found` are those that were set. */
function createTable(size: number) {
  if (size <= maxTable) {
    const table = new Float64Array(size);
    return {
      get: (at: number): number => table[at] ?? 0,
      set(at: number, value: number): void {
        table[at] = value;
      },
      found() {
        // Far fewer are set than there are places: a list of all of these would be some hundred MB.
        const at = Float64Array.from(placesIn(table));
        return { at, numbers: at.map((place) => table[place] ?? 0) };
      },
    };
  }
  const map = new Map<number, number>();
  return {
    get: (at: number): number => map.get(at) ?? 0,
    set(at: number, value: number): void {
      map.set(at, value);
    },
    found: () => ({ at: Float64Array.from(map.keys()), numbers: Float64Array.from(map.values()) }),
  };
}

/** The sums of a query. */
function createSums(axes: Axes, places: number) {
  const { cells, times, timeOf, ownerPart, kindPart } = axes;
  const currencies = new Map<number, number>();
  for (const { currency } of cells.kinds) if (!currencies.has(currency)) currencies.set(currency, currencies.size);
  const costColumn = Int32Array.from(cells.kinds, ({ currency }) => costsAt + (currencies.get(currency) ?? 0));
  const outcomeColumn = Int32Array.from(cells.kinds, ({ outcome }) => sumColumns.length + Math.max(0, outcome));
  const width = costsAt + currencies.size;
  let sums = new Float64Array(width * 64);
  /** Place of each sum among all that there may be, by its number; and its number plus one, by that place. */
  const slots: number[] = [];
  let numbers: ReturnType<typeof createTable> | undefined;
  const odd = new Map<number, UsageTally>();

  /** Where the sum of a slot begins. */
  function sumAt(slot: number): number {
    const table = (numbers ??= createTable(places * Math.max(1, times.length)));
    let number = table.get(slot);
    if (number === 0) {
      if (slots.length >= maxSums) throw new TooManyRows();
      number = slots.push(slot);
      table.set(slot, number);
      if (number * width > sums.length) {
        const grown = new Float64Array(2 * sums.length);
        grown.set(sums);
        sums = grown;
      }
    }
    return (number - 1) * width;
  }

  function tallyAt(number: number, slot: number): UsageTally {
    const at = number * width;
    const valueAt = (column: number): number => Math.min(sums[at + column] ?? 0, Number.MAX_SAFE_INTEGER);
    const tally = emptyRow("", "");
    for (const [column, name] of sumColumns.entries()) tally[name] = valueAt(column);
    for (const [index, outcome] of outcomes.entries()) {
      const count = valueAt(sumColumns.length + index);
      if (count > 0) tally.outcomes[outcome] = count;
    }
    for (const [currency, index] of currencies) {
      const nano = valueAt(costsAt + index);
      if (nano > 0) tally.cost[cells.names.nameOf(currency)] = nano;
    }
    const more = odd.get(slot);
    if (more !== undefined) addRow(tally, more);
    return tally;
  }

  return {
    addCells(
      chunk: CellChunk,
      { from, to }: { readonly from: number; readonly to: number },
      placeOf: Ranking["placeOf"],
    ): void {
      for (let index = from; index < to; index++) {
        const time = timeOf[chunk.hours[index] ?? 0] ?? -1;
        const owner = ownerPart[chunk.owners[index] ?? 0] ?? -1;
        if (time < 0 || owner < 0) continue;
        const kind = chunk.kinds[index] ?? 0;
        const at = sumAt(placeOf(owner + (kindPart[kind] ?? 0)) * times.length + time);
        add(sums, at, chunk.requests[index]);
        add(sums, at + 1, chunk.tokens[index]);
        add(sums, at + 2, chunk.input[index]);
        add(sums, at + 3, chunk.cached[index]);
        add(sums, at + 4, chunk.output[index]);
        add(sums, at + 5, chunk.reasoning[index]);
        add(sums, at + 6, chunk.estimated[index]);
        add(sums, at + (outcomeColumn[kind] ?? 0), chunk.chats[index]);
        add(sums, at + (costColumn[kind] ?? 0), chunk.cost[index]);
      }
    },
    addOdd({ hour, owner, kind, tally }: OddCell, placeOf: Ranking["placeOf"]): void {
      const time = timeOf[hour] ?? -1;
      const part = ownerPart[owner] ?? -1;
      if (time < 0 || part < 0) return;
      const slot = placeOf(part + (kindPart[kind] ?? 0)) * times.length + time;
      sumAt(slot);
      const sum = odd.get(slot) ?? emptyRow("", "");
      addRow(sum, tally);
      odd.set(slot, sum);
    },
    /** All of them, in the order of the names of their subjects. */
    lines(by: readonly UsageSubject[], { partAt, others }: Ranking): readonly UsageLine[] {
      const timeSubject = by.find(isTime);
      const lines = slots.map((slot, number): readonly [string, UsageLine] => {
        const time = times[slot % times.length] ?? "";
        const part = partAt(Math.floor(slot / times.length));
        const names = {
          ...(part === undefined ? {} : axes.namesOf(part)),
          ...(timeSubject === undefined ? {} : { [timeSubject]: time }),
        };
        const line = { user: names.user, names, row: tallyAt(number, slot) };
        if (part !== undefined) return [by.map((subject) => names[subject] ?? "").join("\n"), line];
        // Behind all that have rows of their own.
        return [`\u{10ffff}${time}`, { ...line, others }];
      });
      return lines.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, line]) => line);
    },
  };
}

function add(sums: Float64Array, at: number, value = 0): void {
  sums[at] = (sums[at] ?? 0) + value;
}
