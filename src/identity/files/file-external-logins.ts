import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError } from "../../errors.ts";
import { readPlainFile, removeTemporaries, syncFolder } from "../../lib/files/atomic-file.ts";
import { diskOps, fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { createExternalLogins, type ExternalLogins, type LoginRecordKind } from "../external-logins.ts";
import { writeAccountFile } from "./account-file.ts";
import { createKeyedQueue } from "./keyed-queue.ts";

export interface FileExternalLogins extends ExternalLogins {
  /** Waits for changes that are being stored. */
  close(): Promise<void>;
}

const folders: Readonly<Record<LoginRecordKind, string>> = { logins: "logins", linked: "logins/linked" };

/**
 * Linked logins in users/logins/, which only the proxy writes. They are read at each use: a login is rare. One that
 * can't be read is not in force.
 */
export async function openFileExternalLogins(options: {
  readonly usersDir: string;
  readonly log: Log;
  readonly fileOps?: FileOps;
}): Promise<FileExternalLogins> {
  const { usersDir, log, fileOps = diskOps } = options;
  const queue = createKeyedQueue();
  const pathOf = (kind: LoginRecordKind, name: string): string => join(usersDir, folders[kind], `${name}.json`);

  for (const folder of Object.values(folders)) {
    // The half-written files of a killed process.
    await removeTemporaries(join(usersDir, folder), ".json").catch((error: unknown) => {
      if (fileErrorCode(error) !== "ENOENT") throw error;
    });
  }

  async function read(path: string): Promise<string | undefined> {
    try {
      return await readPlainFile(path);
    } catch (cause) {
      if (fileErrorCode(cause) === "ENOENT") return undefined;
      throw unavailable(path, "read", cause);
    }
  }

  async function write(path: string, text: string | null): Promise<void> {
    try {
      if (text === null) {
        await fileOps.unlink(path);
        await syncFolder(dirname(path), fileOps);
        return;
      }
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeAccountFile(path, text, fileOps);
    } catch (cause) {
      throw unavailable(path, "written", cause);
    }
  }

  function unavailable(path: string, what: string, cause: unknown): AppError {
    log.error({ file: path.slice(usersDir.length + 1), err: cause }, `a linked login could not be ${what}`);
    return new AppError("storage_unavailable", { message: `The linked login could not be ${what}.`, cause });
  }

  return {
    ...createExternalLogins({
      read: (kind, name) => read(pathOf(kind, name)),
      change: (kind, name, edit) =>
        queue.run(`${kind}/${name}`, async () => {
          const path = pathOf(kind, name);
          const text = edit(await read(path));
          if (text !== undefined) await write(path, text);
        }),
      damaged: (kind, name) => {
        log.error({ file: `${folders[kind]}/${name}.json` }, "a linked login cannot be read: not in force");
      },
    }),
    close: () => queue.idle(),
  };
}
