import { AppError } from "../../errors.ts";
import { batchText, type CodeBatch, type Codes, parseBatch } from "../codes.ts";
import { createKeyedQueue } from "../files/keyed-queue.ts";
import type { Documents } from "./documents.ts";
import { createNameList } from "./name-list.ts";

export interface RedisCodes extends Codes {
  close(): Promise<void>;
}

/** As often a change is tried again. */
const maxTries = 100;

/** Codes in Redis, a document for each batch with the text of codes/ID.json. */
export function openRedisCodes(documents: Documents): RedisCodes {
  const names = createNameList(documents, "codes");
  /** Changes of one batch by this process go one after another, so that only other processes can be faster. */
  const queue = createKeyedQueue();

  async function read(id: string): Promise<{ readonly version: string; readonly batch: CodeBatch | undefined }> {
    const { document } = await documents.read("codes", id);
    if (document === undefined) return { version: "new", batch: undefined };
    return { version: document.version, batch: parseBatch(document.text) };
  }

  return {
    get: async (id) => (await read(id)).batch,
    ids: () => names.all(),
    change: (id, edit) =>
      queue.run(id, async () => {
        for (let tries = 0; tries < maxTries; tries++) {
          const { version, batch } = await read(id);
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
