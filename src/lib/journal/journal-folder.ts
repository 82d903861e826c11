import { readdirSync } from "node:fs";
import { join } from "node:path";
import { JournalDamage, readSegment, type OnRecord } from "./journal-reader.ts";

const segmentName = /^(\d{16})\.journal$/;

/** A journal file with the records `first` to `last`. */
export interface Segment {
  readonly path: string;
  readonly first: number;
  readonly last: number;
}

/** The remains of an interrupted write at the end of the newest file. */
interface TornTail {
  readonly file: string;
  /** Bytes up to which the file is intact; 0 if not even its header is. */
  readonly offset: number;
  readonly bytes: number;
}

/** A journal as found on disk. */
export interface JournalContent {
  /** Oldest first; files without a record are omitted. */
  readonly segments: readonly Segment[];
  /** The newest file if it has no record yet; it can be removed. */
  readonly blank: string | undefined;
  readonly torn: TornTail | undefined;
  readonly records: number;
  /** The lowest sequence number never assigned to a record. */
  readonly nextSeq: number;
}

/** Called before each file is read, for progress: it is number `index` (from 0) of `count`, after `records` records. */
export type OnFile = (progress: { file: string; index: number; count: number; records: number }) => void;

/** The path of the file whose first record is `first`. Names sort in numeric order. */
export function segmentPath(folder: string, first: number): string {
  return join(folder, `${String(first).padStart(16, "0")}.journal`);
}

/** The paths of the journal's files in a folder, oldest first. */
export function segmentPaths(folder: string): readonly string[] {
  return readdirSync(folder)
    .filter((name) => segmentName.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/**
 * Reads a whole journal, oldest record first, and changes nothing. Throws JournalDamage if a file is damaged, or a file
 * that is not covered is missing; only the newest may be torn.
 * @param coveredSeq records up to this number are stored elsewhere, so their files may be missing; 0 if none are.
 * Default: records before the oldest file are not required.
 */
export function readJournal(
  folder: string,
  onRecord: OnRecord,
  onFile: OnFile = () => undefined,
  coveredSeq = Infinity,
): JournalContent {
  const paths = segmentPaths(folder);
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

/** The number of the first record of a file, as its name says it. */
export function firstOf(file: string): number {
  return Number(segmentName.exec(file.slice(-24))?.[1]);
}
