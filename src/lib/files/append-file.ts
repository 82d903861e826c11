import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, lstat, open } from "node:fs/promises";
import { fileErrorCode } from "./file-ops.ts";

/** A file that only grows. One caller at a time. */
export interface AppendFile {
  /** Size in bytes. */
  readonly size: number;
  /** Appends all of the bytes, or throws and cuts the file back to where it was, as far as that is still possible. */
  append(bytes: Buffer): Promise<void>;
  /** Resolves when what was appended is on disk. */
  sync(): Promise<void>;
  /** Whether its path names no file or another one, so that readers would not find what is appended. */
  isDeleted(): Promise<boolean>;
  close(): Promise<void>;
}

const { O_APPEND, O_CREAT, O_RDWR, O_NOFOLLOW } = constants;
const lineFeed = 0x0a;

/**
 * Opens a text file for appending, made with mode 0600 where it is missing. A crash may have left half a line at its
 * end: then that line is ended, so that the next one stands alone. A symlink is refused (ELOOP).
 */
export async function openAppendFile(path: string): Promise<AppendFile> {
  const handle = await open(path, O_APPEND | O_CREAT | O_RDWR | O_NOFOLLOW, 0o600);
  try {
    return toAppendFile(path, handle, await endLastLine(handle));
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function toAppendFile(path: string, handle: FileHandle, sizeAtOpen: number): AppendFile {
  let size = sizeAtOpen;
  return {
    get size() {
      return size;
    },
    async append(bytes) {
      try {
        await handle.appendFile(bytes);
        size += bytes.length;
      } catch (error) {
        // A full disk may have taken a part. What fails here too is found as a torn line at the next opening.
        await handle.truncate(size).catch(() => undefined);
        throw error;
      }
    },
    sync: () => handle.datasync(),
    async isDeleted() {
      const [opened, found] = await Promise.all([handle.stat({ bigint: true }), statIfThere(path)]);
      return found?.ino !== opened.ino || found.dev !== opened.dev;
    },
    close: () => handle.close(),
  };
}

async function statIfThere(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function endLastLine(handle: FileHandle): Promise<number> {
  const { size } = await handle.stat();
  if (size === 0) return 0;
  const last = await handle.read(Buffer.alloc(1), 0, 1, size - 1);
  if (last.buffer[0] === lineFeed) return size;
  await handle.appendFile("\n");
  return size + 1;
}
