import type { Dirent } from "node:fs";
import { readdir, stat, unlink } from "node:fs/promises";
import path from "node:path";
import { fileErrorCode } from "../../lib/files/file-ops.ts";
import { type ProxyEvent, rowOf } from "../catalogue.ts";

const filePattern = /^(\d{4}-\d{2}-\d{2})(?:\.([1-9]\d{0,8}))?\.jsonl(\.gz(?:\.tmp)?)?$/;

/** A file of a log, by its name. */
export interface LogFile {
  /** YYYY-MM-DD. */
  readonly day: string;
  readonly part: number;
  /** "unfinished" is what a crash has left of compressing. */
  readonly state: "plain" | "compressed" | "unfinished";
}

/** The folder of the audit log's files. */
export function auditFolder(logsDir: string): string {
  return path.join(logsDir, "audit");
}

/** `2026-11-22.jsonl`, and once that is full `2026-11-22.1.jsonl` and so on. */
export function behaviourFileName(day: string, part: number): string {
  return part === 0 ? `${day}.jsonl` : `${day}.${part}.jsonl`;
}

/** The part of a day's log that lines are appended to: 0 if there is none yet; null if the folder doesn't exist. */
export async function lastPart(folder: string, day: string): Promise<number | null> {
  const names = await readdir(folder).catch((error: unknown) => {
    if (fileErrorCode(error) === "ENOENT") return null;
    throw error;
  });
  if (names === null) return null;
  let last = 0;
  for (const name of names) {
    const file = parseFileName(name);
    // Nothing is appended to what has been compressed.
    if (file?.day === day) last = Math.max(last, file.state === "compressed" ? file.part + 1 : file.part);
  }
  return last;
}

/** The newest day for which any user's log or the audit log has a file; undefined if there is none. */
export async function newestDay(logsDir: string): Promise<string | undefined> {
  const usersDir = path.join(logsDir, "users");
  const users = (await entriesOf(usersDir)).filter((entry) => entry.isDirectory() && isBehaviourFolder(entry.name));
  let newest: string | undefined;
  for (const folder of [auditFolder(logsDir), ...users.map(({ name }) => path.join(usersDir, name))]) {
    for (const { name } of await entriesOf(folder)) {
      const day = parseFileName(name)?.day;
      if (day !== undefined && (newest === undefined || day > newest)) newest = day;
    }
  }
  return newest;
}

/**
 * Removes the files of days before `firstDay` from the folders under `usersDir`. Leaves files with other names alone,
 * and follows no symlinks. Returns how many files were removed; throws the first error after trying them all.
 */
export async function removeOldFiles(usersDir: string, firstDay: string): Promise<number> {
  let removed = 0;
  let failure: unknown;
  for (const folder of await readdir(usersDir, { withFileTypes: true })) {
    if (!folder.isDirectory() || !isBehaviourFolder(folder.name)) continue;
    try {
      removed += await removeOldFilesFrom(path.join(usersDir, folder.name), firstDay);
    } catch (error) {
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure as Error;
  return removed;
}

/** The same for one folder, which need not exist. */
export async function removeOldFilesFrom(folder: string, firstDay: string): Promise<number> {
  let removed = 0;
  for (const entry of await entriesOf(folder)) {
    const file = entry.isFile() ? parseFileName(entry.name) : null;
    // ISO dates sort as strings.
    if (file === null || file.day >= firstDay) continue;
    await unlink(path.join(folder, entry.name));
    removed += 1;
  }
  return removed;
}

/**
 * Removes the oldest files of days before `today` from the folders under `usersDir`, until all take at most `maxBytes`.
 * Returns how many files were removed.
 */
export async function removeBeyondSize(usersDir: string, maxBytes: number, today: string): Promise<number> {
  const files: { readonly file: string; readonly day: string; readonly size: number }[] = [];
  let total = 0;
  for (const folder of await entriesOf(usersDir)) {
    if (!folder.isDirectory() || !isBehaviourFolder(folder.name)) continue;
    for (const entry of await entriesOf(path.join(usersDir, folder.name))) {
      const parsed = entry.isFile() ? parseFileName(entry.name) : null;
      if (parsed === null) continue;
      const file = path.join(usersDir, folder.name, entry.name);
      const { size } = await stat(file);
      total += size;
      files.push({ file, day: parsed.day, size });
    }
  }
  // ISO dates sort as strings.
  files.sort((a, b) => (a.day < b.day ? -1 : a.day > b.day ? 1 : 0));
  let removed = 0;
  for (const { file, day, size } of files) {
    if (total <= maxBytes || day >= today) break;
    await unlink(file);
    total -= size;
    removed += 1;
  }
  return removed;
}

/** The entries of a folder, which need not exist. */
export async function entriesOf(folder: string): Promise<readonly Dirent[]> {
  return readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    if (fileErrorCode(error) === "ENOENT") return [];
    throw error;
  });
}

/** Null for the name of anything else. */
export function parseFileName(name: string): LogFile | null {
  const [, day, part = "0", suffix] = filePattern.exec(name) ?? [];
  if (day === undefined) return null;
  return { day, part: Number(part), state: stateOf(suffix) };
}

function stateOf(suffix: string | undefined): LogFile["state"] {
  if (suffix === undefined) return "plain";
  return suffix === ".gz" ? "compressed" : "unfinished";
}

/** Contains login attempts with nonexistent names. No user name can begin with an underscore. */
const unknownFolder = "_unknown";

const userName = /^[a-z0-9][a-z0-9_-]{0,31}$/;

/** Whether a folder under logs/users/ is a behaviour log. */
export function isBehaviourFolder(name: string): boolean {
  return name === unknownFolder || userName.test(name);
}

/**
 * The folder whose log an event goes to, or null if it is in none or concerns no user. Folders are named after users,
 * so only existing accounts get one: otherwise anyone could fill the disk with folders by failing to log in.
 */
export function behaviourFolder(event: ProxyEvent): string | null {
  if (!rowOf(event).behaviour || !("user" in event) || event.user === null) return null;
  const known = !("known" in event) || event.known;
  return known && userName.test(event.user) ? event.user : unknownFolder;
}

/**
 * An event as a line of JSON with its line feed: `ts`, then the facts, then the event's id, if it has one.
 *
 * @param facts eventFacts as JSON
 * @param time ISO 8601, UTC
 */
export function behaviourLine(facts: string, time: string, id?: string): string {
  return `{"ts":"${time}",${id === undefined ? facts.slice(1) : `${facts.slice(1, -1)},"id":"${id}"}`}\n`;
}
