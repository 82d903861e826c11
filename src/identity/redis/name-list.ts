import type { DocumentKind, Documents } from "./documents.ts";

/** The names of one kind of documents over all tags. */
export interface NameList {
  /** Names after another one, in their order: about as many as wanted, and none only at the end. */
  pageAfter(after: string, wanted: number): Promise<NamesPage>;
  /** All, sorted. Only the tags in which a name came or went since the last call are read again. */
  all(): Promise<readonly string[]>;
}

interface NamesPage {
  readonly names: readonly string[];
  /** Whether there are no others. */
  readonly isLast: boolean;
}

interface TagNames {
  readonly revision: string;
  readonly names: readonly string[];
}

/** Names read by one call. */
const chunk = 5000;

export function createNameList(documents: Documents, kind: DocumentKind): NameList {
  const known = new Map<string, TagNames>();
  let sorted: { readonly of: string; readonly names: readonly string[] } | undefined;

  async function namesOf(tag: string): Promise<TagNames> {
    const before = known.get(tag);
    const first = await documents.namesIn(tag, kind, { limit: chunk, known: before?.revision ?? "" });
    if (first === undefined && before !== undefined) return before;
    const names = [...(first?.names ?? [])];
    for (let page = names; page.length === chunk;) {
      const next = await documents.namesIn(tag, kind, { after: page.at(-1) ?? "", limit: chunk });
      page = [...(next?.names ?? [])];
      for (const name of page) names.push(name);
    }
    // That of the first page: what changed meanwhile is found by the next call.
    const read = { revision: first?.revision ?? "", names };
    known.set(tag, read);
    return read;
  }

  return {
    async pageAfter(after, wanted) {
      // Twice its share of each tag: the names are spread evenly, but not exactly so.
      const limit = Math.ceil((2 * wanted) / documents.tags.length) + 1;
      const read = await Promise.all(documents.tags.map((tag) => documents.namesIn(tag, kind, { after, limit })));
      const pages = read.map((page) => page?.names ?? []);
      // Beyond the end of a page that was full, names of its tag are missing.
      const ends = pages.flatMap((names) => (names.length === limit ? names.slice(-1) : []));
      const end = ends.sort()[0];
      const names = pages.flat().filter((name) => end === undefined || name <= end);
      return { names: names.sort(), isLast: end === undefined };
    },
    async all() {
      const read = await Promise.all(documents.tags.map(namesOf));
      const of = read.map(({ revision }) => revision).join(" ");
      if (sorted?.of !== of) sorted = { of, names: read.flatMap(({ names }) => names).sort() };
      return sorted.names;
    },
  };
}
