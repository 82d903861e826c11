import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, lstat, open } from "node:fs/promises";
import { fileErrorCode } from "./file-ops.ts";

/** An append-only file. One caller at a time. */
export interface AppendFile {
  /** Size in bytes. */
  readonly size: number;
  /** Appends all of the bytes, or throws and truncates the file to its previous size, if that is still possible. */
  append(bytes: Buffer): Promise<void>;
  /** Resolves when everything appended is on disk. */
  sync(): Promise<void>;
  /**
   * Whether its path no longer names this file, so that readers would not find appended data, or somebody has cut it, as
   * logrotate's copytruncate does: then `size` is wrong.
   */
  isDeleted(): Promise<boolean>;
  close(): Promise<void>;
}

const { O_APPEND, O_CREAT, O_RDWR, O_NOFOLLOW } = constants;
const lineFeed = 0x0a;

/**
 * Opens a text file for appending, created with mode 0600 if it is missing. If a crash left half a line at its end,
 * that line is terminated, so that the next one stands alone. A symlink is refused (ELOOP).
 */
export async function openAppendFile(path: string): Promise<AppendFile> {
  const handle = await open(path, O_APPEND | O_CREAT | O_RDWR | O_NOFOLLOW, 0o600);
  try {
    const opened = await handle.stat({ bigint: true });
    return toAppendFile(path, handle, opened, await endLastLine(handle, Number(opened.size)));
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function toAppendFile(path: string, handle: FileHandle, opened: BigIntStats, sizeAtOpen: number): AppendFile {
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
        // A full disk may have accepted a part. If truncating fails too, the next opening finds a torn line.
        await cutTo(handle, size).catch(() => undefined);
        throw error;
      }
    },
    sync: () => handle.datasync(),
    async isDeleted() {
      const found = await statIfThere(path);
      return found?.ino !== opened.ino || found.dev !== opened.dev || found.size < size;
    },
    close: () => handle.close(),
  };
}

/** A file that is shorter, because somebody else has cut it, must not grow by zeros. */
async function cutTo(handle: FileHandle, size: number): Promise<void> {
  if ((await handle.stat()).size > size) await handle.truncate(size);
}

async function statIfThere(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Returns the size in bytes, which is `size` or one more. */
async function endLastLine(handle: FileHandle, size: number): Promise<number> {
  if (size === 0) return 0;
  const last = await handle.read(Buffer.alloc(1), 0, 1, size - 1);
  if (last.buffer[0] === lineFeed) return size;
  await handle.appendFile("\n");
  return size + 1;
}
