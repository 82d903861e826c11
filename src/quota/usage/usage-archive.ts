import { constants } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { z } from "zod";
import { readPlainFile, syncFolder, writeFileAtomic } from "../../lib/files/atomic-file.ts";
import { shiftDate } from "../../lib/dates.ts";
import { fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import type { UsageRow, UsageSpan } from "../ledger.ts";
import { byDayAndModel, type UsageDay } from "./usage-history.ts";
import { fromKeptRow, keptRowSchema, toKeptRow } from "./usage-row.ts";

const lineSchema = keptRowSchema.extend({ seq: z.int() });
const archiveName = /^(.+)\.jsonl$/;
const firstDay = /^\{"day":"(\d{4}-\d{2}-\d{2})"/;
const lineFeed = 0x0a;
/** Lines that are read in one turn of the event loop, some 2 ms: a group's file may have a thousand for each day. */
const linesPerTurn = 500;
const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;

interface Line {
  readonly row: UsageRow;
  /** The last journal record that may be included. */
  readonly seq: number;
}

/**
 * Past days: users/usage/NAME.jsonl, a line for each day, model and API key. A day may occur twice, if a crash came
 * between the archive and the snapshot; the last one counts.
 */
export interface UsageArchive {
  /**
   * The rows of some days, ordered by day, model and key. `name` has been validated.
   * @param upToSeq lines written after this journal record are skipped
   */
  read(name: string, span: UsageSpan, upToSeq?: number): Promise<readonly UsageRow[]>;
  /**
   * Appends days, oldest first. When it resolves they are on disk. One call at a time for each name.
   * @param seq the last journal record that may be included
   */
  append(name: string, days: readonly UsageDay[], seq: number): Promise<void>;
  /** The names of all files. */
  names(): Promise<readonly string[]>;
}

export interface UsageArchiveOptions {
  /** Must exist. */
  readonly folder: string;
  /** Days to keep, counted back from the newest one; more if there are gaps between them. */
  readonly keepDays: number;
  readonly log: Log;
  readonly ops: FileOps;
}

export function createUsageArchive({ folder, keepDays, log, ops }: UsageArchiveOptions): UsageArchive {
  const pathOf = (name: string): string => join(folder, `${name}.jsonl`);
  /** Old lines stay for a while, so that a file is not rewritten every day. */
  const slackDays = Math.ceil(keepDays / 10);

  async function linesOf(name: string, { from, to }: UsageSpan, upToSeq = Infinity): Promise<readonly Line[]> {
    const rows = new Map<string, Line>();
    const torn: number[] = [];
    const lines = (await textOf(pathOf(name))).split("\n");
    for (const [index, line] of lines.entries()) {
      const day = firstDay.exec(line)?.[1];
      if (index % linesPerTurn === linesPerTurn - 1) await nextTurn();
      if (line === "" || (day !== undefined && (day < from || day > to))) continue;
      const decoded = decodeLine(line);
      if (decoded === undefined) torn.push(index + 1);
      else if (decoded.seq <= upToSeq) rows.set(`${decoded.row.day} ${decoded.row.key} ${decoded.row.model}`, decoded);
    }
    if (torn.length > 0) log.warn({ file: pathOf(name), lines: torn }, "skipped incomplete lines of usage");
    return [...rows.values()].sort((a, b) => byDayAndModel(a.row, b.row));
  }

  /**
   * Omits days before `oldest`, but keeps the newest `keepDays` that exist: otherwise, a clock that was ahead for a
   * while would remove everything.
   */
  async function rewrite(name: string, oldest: string, text: string): Promise<void> {
    const lines = await linesOf(name, { from: "0000-01-01", to: "9999-12-31" });
    const newest = new Set([...new Set(lines.map(({ row }) => row.day))].slice(-keepDays));
    const kept = lines.filter(({ row }) => row.day >= oldest || newest.has(row.day));
    await writeFileAtomic(pathOf(name), kept.map(encodeLine).join("") + text, { ops });
  }

  async function append(path: string, text: string): Promise<void> {
    const fd = await ops.open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
    try {
      const bytes = Buffer.from(text);
      for (let done = 0; done < bytes.length;) {
        const written = await ops.write(fd, bytes, done, bytes.length - done);
        if (written === 0) throw new Error(`${path}: nothing could be written`);
        done += written;
      }
      await ops.fdatasync(fd);
    } finally {
      await ops.close(fd);
    }
  }

  return {
    read: async (name, span, upToSeq) => (await linesOf(name, span, upToSeq)).map(({ row }) => row),
    async append(name, days, seq) {
      const text = days.flatMap(({ rows }) => rows.map((row) => encodeLine({ row, seq }))).join("");
      const oldest = shiftDate(days.at(-1)?.date ?? "", -keepDays);
      const { size, day, ended } = await look(pathOf(name));
      if (size > 0 && (day === undefined || day < shiftDate(oldest, -slackDays))) return rewrite(name, oldest, text);
      // A partial line of an interrupted write is to stand alone.
      await append(pathOf(name), ended ? text : `\n${text}`);
      if (size === 0) await syncFolder(folder, ops);
    },
    async names() {
      return (await readdir(folder)).flatMap((file) => archiveName.exec(file)?.[1] ?? []);
    },
  };
}

function encodeLine({ row, seq }: Line): string {
  return `${JSON.stringify({ ...toKeptRow(row), seq })}\n`;
}

function decodeLine(line: string): Line | undefined {
  try {
    const { seq, ...row } = lineSchema.parse(JSON.parse(line));
    return { row: fromKeptRow(row), seq };
  } catch {
    return undefined;
  }
}

async function textOf(path: string): Promise<string> {
  try {
    return await readPlainFile(path);
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return "";
    throw error;
  }
}

/** The size of a file in bytes, the day of its first line if it has one, and whether its last line is complete. */
async function look(
  path: string,
): Promise<{ readonly size: number; readonly day?: string | undefined; readonly ended: boolean }> {
  try {
    const file = await open(path, constants.O_RDONLY | O_NOFOLLOW);
    try {
      const { size } = await file.stat();
      const head = await file.read(Buffer.alloc(32), 0, 32, 0);
      const last = await file.read(Buffer.alloc(1), 0, 1, Math.max(0, size - 1));
      const day = firstDay.exec(head.buffer.toString("latin1"))?.[1];
      return { size, day, ended: size === 0 || last.buffer[0] === lineFeed };
    } finally {
      await file.close();
    }
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return { size: 0, ended: true };
    throw error;
  }
}
