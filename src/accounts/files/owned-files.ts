import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "smol-toml";
import type { z } from "zod";
import { readPlainFile } from "../../lib/files/atomic-file.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { writeAccountFile } from "./account-file.ts";
import { parseToml } from "./toml-edit.ts";
import { isUserName } from "../user-name.ts";

/** Files beside the accounts, one for each user, which the proxy alone writes: users/NAME.KIND.toml. */
export interface OwnedFiles<T> {
  /** Reads all of them, by user. What can't be read is logged and left out. */
  loadAll(): Promise<ReadonlyMap<string, T>>;
  /** Whether the user's file could not be read: overwriting it would lose what somebody could still mend. */
  isBroken(user: string): boolean;
  /** Replaces a user's file; it is on disk when this resolves. Rejects with Node's error. */
  save(user: string, content: object): Promise<void>;
}

interface OwnedFilesOptions<T> {
  readonly usersDir: string;
  readonly kind: "sessions" | "keys";
  /** What a file holds. */
  readonly schema: z.ZodType<T>;
  readonly log: Log;
  readonly fileOps?: FileOps | undefined;
}

const parallelReads = 8;

/** Makes the files of one kind. */
export function createOwnedFiles<T>(options: OwnedFilesOptions<T>): OwnedFiles<T> {
  const { usersDir, kind, schema, log } = options;
  const ending = `.${kind}.toml`;
  const broken = new Set<string>();

  async function load(user: string, found: Map<string, T>): Promise<void> {
    const file = `${user}${ending}`;
    try {
      found.set(user, schema.parse(parseToml(await readPlainFile(join(usersDir, file)))));
    } catch (error) {
      broken.add(user);
      // Neither TOML's nor the schema's message: they quote what they stumble over.
      const reason = error instanceof Error ? error.name : "unknown";
      log.error({ file, reason }, `the ${kind} of a user cannot be read and are not in force`);
    }
  }

  return {
    async loadAll() {
      const names = (await readdir(usersDir))
        .filter((file) => file.endsWith(ending))
        .map((file) => file.slice(0, -ending.length))
        .filter(isUserName)
        .values();
      const found = new Map<string, T>();
      const worker = async (): Promise<void> => {
        for (const user of names) await load(user, found);
      };
      await Promise.all(Array.from({ length: parallelReads }, worker));
      return found;
    },
    isBroken: (user) => broken.has(user),
    async save(user, content) {
      const text = `# Written by the proxy: changes made here are lost.\n${stringify(content)}`;
      await writeAccountFile(join(usersDir, `${user}${ending}`), text, options.fileOps);
      broken.delete(user);
    },
  };
}
