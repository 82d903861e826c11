import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../lib/files/atomic-file.ts";
import { readJsonFile } from "../lib/files/json-file.ts";
import type { TagFollower } from "./tag-follower.ts";

/** By tag, the epochs that the folder has been through, newest first. */
export type KnownEpochs = Readonly<Record<string, readonly string[]>>;

const fileName = ".known-epochs.json";
const fileSchema = z.record(z.string(), z.array(z.string()));

/**
 * What the process of this folder knew of epochs when it ended: Redis may be back in a state from before some of them when
 * it starts again. Throws Node's errors, and where the file is damaged.
 */
export function readKnownEpochs(usersDir: string): Promise<KnownEpochs> {
  return readJsonFile(join(usersDir, fileName), fileSchema, {});
}

/** Returns what writes the epochs that are known now, where they have changed. That throws Node's errors. */
export function createEpochsFile(
  usersDir: string,
  known: KnownEpochs,
  followers: readonly Pick<TagFollower, "tag" | "epochs">[],
): () => Promise<void> {
  let written = JSON.stringify(known);
  return async () => {
    const text = JSON.stringify(Object.fromEntries(followers.map(({ tag, epochs }) => [tag, epochs()])));
    if (text === written) return;
    await writeFileAtomic(join(usersDir, fileName), `${text}\n`);
    written = text;
  };
}
