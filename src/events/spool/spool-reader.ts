import { join } from "node:path";
import { readPlainFile, writeFileAtomic } from "../../lib/files/atomic-file.ts";
import { fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import {
  type LossReason,
  openSegment,
  type SegmentScan,
  type SpoolRecord,
  type SpoolSegment,
} from "./spool-segment.ts";

/** Reads the spool from where it was left. One call of `read` at a time. */
export interface SpoolReader {
  /** The next events, some hundred at most; empty if there is none now. Rejects with Node's errors. */
  read(): Promise<readonly SpoolRecord[]>;
  /** Resolves once there may be something to read, or `wake` is called. */
  more(): Promise<void>;
  wake(): void;
  /** Everything up to this number need not be read again. It is saved within half a second. */
  acknowledge(seq: number): void;
  /** Counts events that will never be delivered. */
  lose(reason: LossReason, count: number): void;
  /** What has not been acknowledged. */
  lag(): { readonly events: number; readonly bytes: number };
  /** Lost events by reason, since the start. */
  lost(): Readonly<Partial<Record<LossReason, number>>>;
}

/** A reader as the spool sees it. */
export interface OpenedReader extends SpoolReader {
  /** The position on disk. */
  saved(): number;
  appended(): void;
  /** A file has been removed, read or not. */
  dropped(segment: SpoolSegment): void;
  /** Saves the position. Never rejects. */
  close(): Promise<void>;
}

export interface SpoolReaderOptions {
  readonly name: string;
  readonly folder: string;
  /** The spool's own list, oldest first: it changes. */
  readonly segments: readonly SpoolSegment[];
  readonly lastSeq: () => number;
  readonly log: Log;
  readonly onLoss: (reason: LossReason, count: number) => void;
  /** Called when a position has been saved. */
  readonly onSaved: () => void;
  readonly ops: FileOps;
}

/** How long a position may wait to be saved, in ms: a crash repeats what was read meanwhile. */
const saveMs = 500;
/** What is wrong with the file itself. After other errors, such as too many open files, the next try may succeed. */
const lostCodes: ReadonlySet<string> = new Set(["ENOENT", "EIO", "ELOOP", "EISDIR", "EBADMSG"]);

/** Opens a reader at its saved position; without one at the oldest event. */
export async function createSpoolReader(options: SpoolReaderOptions): Promise<OpenedReader> {
  const { name, folder, segments, lastSeq, log, onLoss, onSaved, ops } = options;
  const path = join(folder, `${name}.position`);
  const found = await readPosition(path, log);
  const oldest = segments[0]?.first ?? 0;
  let acknowledged = Math.max(found?.seq ?? 0, oldest - 1);
  /** What is on disk. */
  let saved: Position = found ?? { seq: acknowledged, lost: 0 };
  /** Number of the last event that was read or skipped. */
  let position = acknowledged;
  /** Number of the last event that `read` has returned: what is behind the acknowledged ones is being delivered. */
  let returned = acknowledged;
  let at: { readonly segment: SpoolSegment; readonly scan: SegmentScan } | undefined;
  let wakeUp: (() => void) | undefined;
  let saving: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  let reading: Promise<readonly SpoolRecord[]> | undefined;
  const lost: Partial<Record<LossReason, number>> = {};

  function lose(reason: LossReason, count: number): void {
    if (count <= 0) return;
    lost[reason] = (lost[reason] ?? 0) + count;
    onLoss(reason, count);
  }

  /** Events behind the ones that are being delivered that have been counted as lost. */
  const lostAhead = (): number => (acknowledged < returned ? position - returned : 0);

  async function closeScan(): Promise<void> {
    const open = at;
    at = undefined;
    await open?.scan.close();
  }

  /** Goes on behind events that will not be delivered. */
  function skipTo(seq: number, reason: LossReason): void {
    lose(reason, seq - position);
    position = seq;
    setAcknowledged(acknowledged);
  }

  function setAcknowledged(seq: number): void {
    // Nothing is being delivered: what was skipped is behind us as well.
    acknowledged = seq >= returned ? position : seq;
    if (!isSaved()) saveSoon();
  }

  async function read(): Promise<readonly SpoolRecord[]> {
    for (;;) {
      const segment = segments.find(({ last }) => last > position);
      if (segment === undefined) return [];
      const { last, bytes } = segment;
      const found = await readFrom(segment, bytes);
      // Otherwise it was dropped meanwhile, and all of it counted.
      if (!segments.includes(segment)) continue;
      const [first, reached] = [found.records[0]?.seq, found.records.at(-1)?.seq];
      if (first === undefined || reached === undefined) {
        if (found.isDone) skipTo(last, "damaged");
        continue;
      }
      skipTo(first - 1, "damaged");
      lose("damaged", reached - position - found.records.length);
      position = reached;
      returned = reached;
      return found.records;
    }
  }

  /** What comes next in a file. One that can't be read any more has nothing. */
  async function readFrom(segment: SpoolSegment, bytes: number): ReturnType<SegmentScan["next"]> {
    try {
      if (at !== undefined && at.segment !== segment) await closeScan();
      at ??= { segment, scan: await openSegment(segment.path, segment.first) };
      return await at.scan.next(position, bytes);
    } catch (err) {
      if (!lostCodes.has(fileErrorCode(err) ?? "")) throw err;
      log.error({ event: "spool.failed", reader: name, err }, "a file of the spool could not be read");
      return { records: [], isDone: true };
    }
  }

  const isSaved = (): boolean => acknowledged === saved.seq && lostAhead() === saved.lost;

  function saveSoon(): void {
    if (closed) return;
    timer ??= setTimeout(() => {
      timer = undefined;
      saving = save();
    }, saveMs).unref();
  }

  async function save(): Promise<void> {
    await saving;
    if (isSaved()) return;
    const next = { seq: acknowledged, lost: lostAhead() };
    try {
      await writeFileAtomic(path, `${positionText(next)}\n`, { syncFolder: false, ops });
      saved = next;
      onSaved();
    } catch (err) {
      log.error({ event: "spool.failed", reader: name, err }, "the position of a reader could not be saved");
      saveSoon();
    }
  }

  // What was being delivered when the process was killed, from files that had been dropped.
  if (found !== undefined) lose("spool_full", oldest - 1 - found.seq - found.lost);
  if (!isSaved()) saveSoon();
  return {
    read: () => (reading = read()),
    more() {
      if (lastSeq() > position) return Promise.resolve();
      return new Promise((resolve) => {
        wakeUp = resolve;
      });
    },
    wake: appended,
    appended,
    acknowledge(seq) {
      setAcknowledged(Math.max(acknowledged, seq));
    },
    lose,
    lag() {
      const waiting = segments.filter(({ last }) => last > acknowledged);
      const partOf = ({ first, last, bytes }: SpoolSegment): number =>
        acknowledged < first ? bytes : Math.round((bytes * (last - acknowledged)) / (last - first + 1));
      return {
        events: Math.max(0, lastSeq() - acknowledged - lostAhead()),
        bytes: waiting.reduce((sum, segment) => sum + partOf(segment), 0),
      };
    },
    lost: () => ({ ...lost }),
    saved: () => saved.seq,
    dropped({ first, last }) {
      if (last <= position) return;
      position = Math.max(position, first - 1);
      skipTo(last, "spool_full");
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await save();
      // It may be opening a file.
      await reading?.catch(() => undefined);
      await closeScan();
    },
  };

  function appended(): void {
    const wake = wakeUp;
    wakeUp = undefined;
    wake?.();
  }
}

/** What a reader keeps on disk. */
interface Position {
  readonly seq: number;
  /** Later events that have been counted as lost already. */
  readonly lost: number;
}

async function readPosition(path: string, log: Log): Promise<Position | undefined> {
  try {
    const position = parsePosition(JSON.parse(await readPlainFile(path)));
    if (position !== undefined) return position;
    log.warn(
      { event: "spool.failed", file: path },
      "the saved position of a reader is invalid: it starts again at the oldest event",
    );
  } catch (err) {
    if (fileErrorCode(err) === "ENOENT") return undefined;
    log.warn(
      { event: "spool.failed", file: path, err },
      "the saved position of a reader could not be read: it starts again at the oldest event",
    );
  }
  return undefined;
}

function positionText({ seq, lost }: Position): string {
  return JSON.stringify(lost === 0 ? { seq } : { seq, lost });
}

function parsePosition(value: unknown): Position | undefined {
  if (typeof value !== "object" || value === null || !("seq" in value)) return undefined;
  const { seq } = value;
  // Earlier versions have not written it.
  const lost: unknown = "lost" in value ? value.lost : 0;
  return isCount(seq) && isCount(lost) ? { seq, lost } : undefined;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
