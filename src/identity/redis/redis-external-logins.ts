import { AppError } from "../../errors.ts";
import { createExternalLogins, type ExternalLogins } from "../external-logins.ts";
import type { Log } from "../../lib/log.ts";
import { createKeyedQueue } from "../files/keyed-queue.ts";
import type { Documents } from "./documents.ts";

export interface RedisExternalLogins extends ExternalLogins {
  close(): Promise<void>;
}

/** As often a change is tried again. */
const maxTries = 100;

/** Linked logins in Redis, documents with the texts of the files in users/logins/. */
export function openRedisExternalLogins(documents: Documents, log: Log): RedisExternalLogins {
  /** Changes of one record by this process go one after another, so that only other processes can be faster. */
  const queue = createKeyedQueue();
  return {
    ...createExternalLogins({
      read: async (kind, name) => (await documents.read(kind, name)).document?.text,
      change: (kind, name, edit) =>
        queue.run(`${kind}/${name}`, async () => {
          for (let tries = 0; tries < maxTries; tries++) {
            const { document } = await documents.read(kind, name);
            const text = edit(document?.text);
            if (text === undefined) return;
            const expected = document?.version ?? "new";
            if ((await documents.put({ kind, name, text, expected })) !== undefined) return;
          }
          throw new AppError("storage_unavailable", { message: "The linked login is changed by others all the time." });
        }),
      damaged: (kind, name) => {
        log.error({ document: `${kind}/${name}` }, "a linked login cannot be read: not in force");
      },
    }),
    close: () => queue.idle(),
  };
}
