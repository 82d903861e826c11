import { randomBytes } from "node:crypto";
import { link, lstat, mkdir, mkdtemp, rename, rmdir, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { giveToFolderOwner, readPlainFile, syncFolder, writeFileAtomic } from "../../lib/files/atomic-file.ts";
import { diskOps, fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";

/** A user file as read from disk. */
export interface AccountFile {
  readonly text: string;
  /** Differs from the stamp of every other state of the file. */
  readonly stamp: string;
}

/** Maximum size of a user file. */
export const maxAccountBytes = 1 << 20;

/** Files beside the accounts that only the proxy writes. */
const ownRecord = /\.(quota|sessions|keys)\.toml$/;

/**
 * Whether this is the name of a user file, valid or not: NAME.toml, but no file of the proxy's own and no hidden file.
 */
export function isAccountFileName(name: string): boolean {
  return name.endsWith(".toml") && !ownRecord.test(name) && !name.startsWith(".");
}

/**
 * Reads a user file; undefined if there is none.
 *
 * @throws Error if it is a symlink, not a regular file, larger than 1 MiB or not UTF-8, and for any I/O error
 */
export async function readAccountFile(path: string): Promise<AccountFile | undefined> {
  // Before the content: if the file changes in between, the stamp is out of date and the file is read again.
  const stamp = await readStamp(path);
  if (stamp === undefined) return undefined;
  try {
    return { text: await readPlainFile(path), stamp };
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    if (fileErrorCode(error) === "ELOOP") throw new Error("is a symbolic link, which is not followed");
    throw error;
  }
}

/**
 * The file's stamp without reading it; undefined if there is none.
 *
 * @throws Error if the file is larger than 1 MiB
 */
export async function readStamp(path: string): Promise<string | undefined> {
  try {
    const { ino, size, mtimeMs, ctimeMs } = await lstat(path);
    if (size > maxAccountBytes) throw new Error(`is larger than ${maxAccountBytes} bytes`);
    return `${ino}:${size}:${mtimeMs}:${ctimeMs}`;
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Replaces a user file atomically: at any moment it has either the old or the new content. Only the owner can read it.
 *
 * @param replaced the text that the file must still have: it may have been edited by hand while the new text was
 * written to disk. Absent: it is replaced whatever it has
 * @returns whether it was replaced
 */
export async function writeAccountFile(
  path: string,
  text: string,
  ops: FileOps = diskOps,
  replaced?: string,
): Promise<boolean> {
  const isStillMeant = async () => replaced === undefined || (await textNow(path)) === replaced;
  const isReplaced = await writeFileAtomic(path, text, { mode: 0o600, isStillMeant, ops });
  if (isReplaced) await giveToFolderOwner(path);
  return isReplaced;
}

/** The text of a user file; undefined if it has none that can be read. */
async function textNow(path: string): Promise<string | undefined> {
  return (await readAccountFile(path).catch(() => undefined))?.text;
}

/**
 * Creates a user file that must not exist yet.
 *
 * @returns false if it exists, with nothing changed; of two concurrent calls one returns true
 */
export async function createAccountFile(path: string, text: string, ops: FileOps = diskOps): Promise<boolean> {
  const draft = join(dirname(path), `.${basename(path)}.${randomBytes(8).toString("hex")}.tmp`);
  await writeFileAtomic(draft, text, { mode: 0o600, syncFolder: false, ops });
  try {
    // Unlike a rename, a link never replaces; unlike O_EXCL on the name itself, no reader sees half a file.
    await link(draft, path);
  } catch (error) {
    if (fileErrorCode(error) === "EEXIST") return false;
    throw error;
  } finally {
    await unlink(draft);
  }
  await syncFolder(dirname(path), ops);
  await giveToFolderOwner(path);
  return true;
}

/**
 * Moves users/NAME.toml to its own folder, users/.archive/NAME-TIME-XXXXXX/; on disk when this resolves.
 *
 * @param at ms since the epoch
 * @returns the folder
 */
export async function archiveAccountFile(usersDir: string, name: string, at: number): Promise<string> {
  const archive = join(usersDir, ".archive");
  await mkdir(archive, { recursive: true, mode: 0o700 });
  await giveToFolderOwner(archive);
  const time = new Date(at).toISOString().replace(/[-:]|\.\d+/g, "");
  const folder = await mkdtemp(join(archive, `${name}-${time}-`));
  await giveToFolderOwner(folder);
  try {
    await rename(join(usersDir, `${name}.toml`), join(folder, `${name}.toml`));
  } catch (error) {
    await rmdir(folder);
    throw error;
  }
  for (const changed of [folder, archive, usersDir]) await syncFolder(changed);
  return folder;
}

/**
 * Moves what remains of the user's sessions and keys after they have been ended, so that a later user of the same name
 * starts with none. NAME.quota.toml stays: the ledger keeps it in memory and would write it again, and usage under a
 * name must neither disappear nor be given back by recreating the account.
 */
export async function archiveRecords(usersDir: string, name: string, folder: string): Promise<void> {
  for (const file of [`${name}.sessions.toml`, `${name}.keys.toml`]) {
    try {
      await rename(join(usersDir, file), join(folder, file));
    } catch (error) {
      if (fileErrorCode(error) !== "ENOENT") throw error;
    }
  }
  for (const changed of [folder, usersDir]) await syncFolder(changed);
}
