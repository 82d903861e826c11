import { AppError } from "../../errors.ts";
import type { Log } from "../../lib/log.ts";
import { batchText, type CodeBatch, type Codes, parseBatch } from "../codes.ts";
import { createKeyedQueue } from "../files/keyed-queue.ts";
import type { Documents } from "./documents.ts";
import { createNameList } from "./name-list.ts";
import { createProblems } from "./problems.ts";

export interface RedisCodes extends Codes {
  close(): Promise<void>;
}

/** As often a change is tried again. */
const maxTries = 100;

/** A document that can't be read. */
class Damaged extends Error {
  override readonly name = "Damaged";
}

/** Codes in Redis, a document for each batch with the text of codes/ID.json. One that can't be read is skipped. */
export function openRedisCodes(documents: Documents, log: Log): RedisCodes {
  const names = createNameList(documents, "codes");
  /** Changes of one batch by this process go one after another, so that only other processes can be faster. */
  const queue = createKeyedQueue();
  const problems = createProblems(log, "a batch of codes cannot be read: not in force");

  /** @throws Damaged */
  async function read(id: string): Promise<{ readonly version: string; readonly batch: CodeBatch | undefined }> {
    const { document } = await documents.read("codes", id);
    if (document === undefined) return { version: "new", batch: undefined };
    try {
      const batch = parseBatch(document.text);
      problems.clear(id);
      return { version: document.version, batch };
    } catch (cause) {
      problems.report(id, { file: `codes/${id}.json`, reason: "is damaged" });
      throw new Damaged(`codes/${id}.json`, { cause });
    }
  }

  /** For changes. */
  async function readWhole(id: string): ReturnType<typeof read> {
    try {
      return await read(id);
    } catch (cause) {
      if (!(cause instanceof Damaged)) throw cause;
      throw new AppError("conflict", { message: `The file codes/${id}.json is damaged.`, cause });
    }
  }

  async function get(id: string): Promise<CodeBatch | undefined> {
    try {
      return (await read(id)).batch;
    } catch (error) {
      if (error instanceof Damaged) return undefined;
      throw error;
    }
  }

  return {
    get,
    ids: () => names.all(),
    change: (id, edit) =>
      queue.run(id, async () => {
        for (let tries = 0; tries < maxTries; tries++) {
          const { version, batch } = await readWhole(id);
          const next = edit(batch);
          if (next === undefined) return batch;
          const change = { kind: "codes", name: id, text: batchText(next), expected: version } as const;
          if ((await documents.put(change)) !== undefined) return next;
        }
        throw new AppError("storage_unavailable", { message: "The codes are changed by others all the time." });
      }),
    close: () => queue.idle(),
  };
}
