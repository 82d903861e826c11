import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../errors.ts";
import { readPlainFile, removeTemporaries } from "../../lib/files/atomic-file.ts";
import { diskOps, fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { batchText, type CodeBatch, type Codes, parseBatch } from "../codes.ts";
import { writeAccountFile } from "./account-file.ts";
import { createKeyedQueue } from "./keyed-queue.ts";

const ending = ".json";

export interface FileCodes extends Codes {
  ids(): readonly string[];
  /** Waits for changes that are being stored. */
  close(): Promise<void>;
}

/** Codes in users/codes/ID.json, which only the proxy writes. A file that can't be read is left alone. */
export async function openFileCodes(options: {
  readonly usersDir: string;
  readonly log: Log;
  readonly fileOps?: FileOps;
}): Promise<FileCodes> {
  const { log, fileOps = diskOps } = options;
  const folder = join(options.usersDir, "codes");
  const batches = new Map<string, CodeBatch>();
  const broken = new Set<string>();
  const queue = createKeyedQueue();

  for (const file of await filesIn(folder)) {
    const id = file.slice(0, -ending.length);
    try {
      batches.set(id, parseBatch(await readPlainFile(join(folder, file))));
    } catch {
      broken.add(id);
      log.error({ file: `codes/${file}` }, "a batch of codes cannot be read: not in force");
    }
  }

  return {
    get: (id) => batches.get(id),
    ids: () => [...batches.keys()].sort(),
    change: (id, edit) =>
      queue.run(id, async () => {
        const before = batches.get(id);
        const next = edit(before);
        if (next === undefined) return before;
        if (broken.has(id)) throw new AppError("conflict", { message: `The file codes/${id}${ending} is damaged.` });
        try {
          await mkdir(folder, { recursive: true, mode: 0o700 });
          await writeAccountFile(join(folder, `${id}${ending}`), batchText(next), fileOps);
        } catch (cause) {
          log.error({ batch: id, err: cause }, "a batch of codes could not be written");
          throw new AppError("storage_unavailable", { message: "The code could not be saved.", cause });
        }
        batches.set(id, next);
        return next;
      }),
    close: () => queue.idle(),
  };
}

async function filesIn(folder: string): Promise<readonly string[]> {
  try {
    // The half-written files of a killed process.
    await removeTemporaries(folder, ending);
    return (await readdir(folder)).filter((file) => file.endsWith(ending) && !file.startsWith("."));
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return [];
    throw error;
  }
}
