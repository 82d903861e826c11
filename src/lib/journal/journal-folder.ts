import { readdirSync } from "node:fs";
import { join } from "node:path";
import { JournalDamage, readSegment, type OnRecord } from "./journal-reader.ts";

const segmentName = /^(\d{16})\.journal$/;

/** A journal file that holds the records `first` to `last`. */
export interface Segment {
  readonly path: string;
  readonly first: number;
  readonly last: number;
}

/** What an interrupted write left at the end of the newest file. */
interface TornTail {
  readonly file: string;
  /** Bytes up to which the file is whole; 0 where not even its header is. */
  readonly offset: number;
  readonly bytes: number;
}

/** A journal as it was found on disk. */
export interface JournalContent {
  /** Oldest first; files without a record are left out. */
  readonly segments: readonly Segment[];
  /** The newest file where it has no record yet; it says nothing and may go. */
  readonly blank: string | undefined;
  readonly torn: TornTail | undefined;
  readonly records: number;
  /** The lowest sequence number that was never given to a record. */
  readonly nextSeq: number;
}

/** Told before each file is read, for progress: it is number `index` (from 0) of `count`, after `records` records. */
export type OnFile = (progress: { file: string; index: number; count: number; records: number }) => void;

/** The path of the file that begins with record `first`. Names sort as their numbers do. */
export function segmentPath(folder: string, first: number): string {
  return join(folder, `${String(first).padStart(16, "0")}.journal`);
}

/**
 * Reads a whole journal, oldest record first, and changes nothing.
 * Throws JournalDamage where a file is damaged, or one is missing that is not covered; only the newest may be torn.
 * @param coveredSeq records up to this number are counted elsewhere, so the files that held them may be gone; 0 where
 *   none are. Default: what came before the oldest file is not asked for.
 */
export function readJournal(
  folder: string,
  onRecord: OnRecord,
  onFile: OnFile = () => undefined,
  coveredSeq = Infinity,
): JournalContent {
  const paths = readdirSync(folder)
    .filter((name) => segmentName.test(name))
    .sort()
    .map((name) => join(folder, name));
  const segments: Segment[] = [];
  let content: JournalContent = { segments, blank: undefined, torn: undefined, records: 0, nextSeq: 1 };
  for (const [index, file] of paths.entries()) {
    onFile({ file, index, count: paths.length, records: content.records });
    content = addSegment(content, segments, file, index === paths.length - 1, coveredSeq, onRecord);
  }
  return content;
}

function addSegment(
  sofar: JournalContent,
  segments: Segment[],
  file: string,
  newest: boolean,
  coveredSeq: number,
  onRecord: OnRecord,
): JournalContent {
  const { header, last, records, wholeBytes, tornBytes } = readSegment(file, onRecord);
  if (!newest && (header === undefined || tornBytes > 0)) {
    throw new JournalDamage(file, wholeBytes, "the file breaks off, and newer files follow");
  }
  if (header !== undefined) {
    if (segmentPath("", header.first) !== segmentPath("", firstOf(file))) {
      throw new JournalDamage(file, 0, `the header says ${header.first}, the file's name something else`);
    }
    const before = segments.at(-1)?.last;
    if (before === undefined ? header.previous > coveredSeq : header.previous !== before) {
      const firstMissing = (before ?? coveredSeq) + 1;
      throw new JournalDamage(file, 0, `records ${firstMissing} to ${header.previous} are missing before this file`);
    }
    if (records > 0) segments.push({ path: file, first: header.first, last });
  }
  return {
    segments,
    blank: records === 0 ? file : undefined,
    torn: tornBytes > 0 || header === undefined ? { file, offset: wholeBytes, bytes: tornBytes } : undefined,
    records: sofar.records + records,
    nextSeq: Math.max(sofar.nextSeq, header?.first ?? 1, records > 0 ? last + 1 : 1),
  };
}

function firstOf(file: string): number {
  return Number(segmentName.exec(file.slice(-24))?.[1]);
}
