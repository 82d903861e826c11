import { randomBytes } from "node:crypto";
import { constants, promises } from "node:fs";
import { lchown, lstat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { diskOps, fileErrorCode, type FileOps } from "./file-ops.ts";

const temporaryName = /^\..+\.[0-9a-f]{16}\.tmp$/;

export interface AtomicWriteOptions {
  /** Permissions of the new file; default 0600. */
  readonly mode?: number;
  /** false leaves the fsync of the folder to the caller, who does it once for many files. */
  readonly syncFolder?: boolean;
  /** Asked just before the rename, which may come long after the call on a slow disk; false leaves the file as it is. */
  readonly isStillMeant?: () => Promise<boolean>;
  readonly ops?: FileOps;
}

/**
 * Replaces a file so that, whatever happens, it has either the full old or the full new text: a uniquely named
 * temporary file in the same folder, fsync, rename, fsync of the folder. A symlink at `path` is replaced; its target
 * stays unchanged. If a step fails, removes the temporary file and rejects with Node's error. Returns whether the file
 * was replaced.
 */
export async function writeFileAtomic(path: string, text: string, options: AtomicWriteOptions = {}): Promise<boolean> {
  const ops = options.ops ?? diskOps;
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomBytes(8).toString("hex")}.tmp`);
  try {
    await writeNew(ops, temporary, Buffer.from(text), options.mode ?? 0o600);
    if ((await options.isStillMeant?.()) === false) {
      await ops.unlink(temporary);
      return false;
    }
    await ops.rename(temporary, path);
  } catch (error) {
    await ops.unlink(temporary).catch(() => undefined);
    throw error;
  }
  if (options.syncFolder !== false) await syncFolder(folder, ops);
  return true;
}

/** Makes renames, new files and removals in a folder durable. Does nothing if the platform cannot sync folders. */
export async function syncFolder(folder: string, ops: FileOps = diskOps): Promise<void> {
  let fd: number;
  try {
    fd = await ops.open(folder, constants.O_RDONLY, 0);
  } catch (error) {
    // Windows cannot open folders.
    if (["EISDIR", "EPERM"].includes(fileErrorCode(error) ?? "")) return;
    throw error;
  }
  try {
    await ops.fsync(fd);
  } catch (error) {
    // Some network file systems have no fsync for folders; a real I/O error must be thrown.
    if (!["EINVAL", "ENOTSUP"].includes(fileErrorCode(error) ?? "")) throw error;
  } finally {
    await ops.close(fd);
  }
}

/** No file that is read as a whole is nearly as large: it belongs to somebody else, and would fill the memory. */
const maxPlainBytes = 256 << 20;

/**
 * Reads a UTF-8 file that must be a regular file. Rejects with ELOOP for a symlink, and with an error that names the
 * path for a folder, a pipe or a device, and for bytes that are not UTF-8.
 */
export async function readPlainFile(path: string): Promise<string> {
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  const file = await promises.open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new Error(`${path} is not a plain file`);
    if (stat.size > maxPlainBytes) throw new Error(`${path} is larger than ${maxPlainBytes} bytes`);
    const bytes = await file.readFile();
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      throw new Error(`${path} is not valid UTF-8`);
    }
  } finally {
    await file.close();
  }
}

/**
 * Removes the temporary files that a killed process left during writeFileAtomic, for targets whose name ends with
 * `ending`. Only safe while no other process writes there. Returns how many were removed.
 */
export async function removeTemporaries(folder: string, ending: string): Promise<number> {
  const names = (await promises.readdir(folder)).filter(
    (name) => temporaryName.test(name) && name.slice(1, -".0123456789abcdef.tmp".length).endsWith(ending),
  );
  for (const name of names) await promises.unlink(join(folder, name));
  return names.length;
}

async function writeNew(ops: FileOps, path: string, bytes: Uint8Array, mode: number): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const fd = await ops.open(path, flags, mode);
  try {
    for (let done = 0; done < bytes.length;) {
      const written = await ops.write(fd, bytes, done, bytes.length - done);
      if (written === 0) throw new Error(`${path}: nothing could be written`);
      done += written;
    }
    await ops.fsync(fd);
  } finally {
    await ops.close(fd);
  }
}

/**
 * Changes a file's or folder's owner to that of its parent folder: after a command that was run with sudo, the server,
 * which is not root, must still be able to use it.
 */
export async function giveToFolderOwner(path: string): Promise<void> {
  try {
    const [file, folder] = await Promise.all([lstat(path), lstat(dirname(path))]);
    if (file.uid !== folder.uid) await lchown(path, folder.uid, folder.gid);
  } catch (error) {
    // Only root may give files away; other users wrote their own file in a shared folder. An editor may have moved the
    // file away, to write another one in its place.
    if (!["EPERM", "ENOENT"].includes(fileErrorCode(error) ?? "")) throw error;
  }
}
