import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../lib/files/atomic-file.ts";
import { readJsonFile } from "../lib/files/json-file.ts";
import type { Redis } from "../lib/redis/redis.ts";
import type { LedgerFollower } from "../quota/memory/ledger-follower.ts";
import { tagOfDocument } from "../identity/redis/documents.ts";
import type { DocumentFolder } from "./document-folder.ts";
import { readLogPage, streamStart } from "./log-page.ts";
import type { TagFollower } from "./tag-follower.ts";

/** The users folder has what Redis lacks, and has never been a copy of it: to go on would remove that. */
export class ForeignStateError extends Error {
  override readonly name = "ForeignStateError";
}

interface OwnStateOptions {
  readonly redis: Redis;
  readonly usersDir: string;
  readonly followers: readonly Pick<TagFollower, "tag" | "epoch" | "epochs">[];
  readonly ledger: Pick<LedgerFollower, "accounts">;
  readonly documents: Pick<DocumentFolder, "all">;
}

/** Keeps a folder with a state of its own from being replaced by another one's. */
export interface OwnState {
  /**
   * Resolves where the folder is a copy of what Redis has, or was begun as one, and where it has nothing that Redis lacks.
   * Tags of which Redis has nothing don't count: these get what the folder has. Throws ForeignStateError, as Redis.call,
   * and Node's errors.
   */
  check(): Promise<void>;
  /** Looks at those tags that were empty for check(), once they are not: another process may have filled them. */
  checkAgain(): Promise<void>;
  /** How many documents and accounts the folder had. */
  size(): number;
}

/** By tag, the epoch that Redis had when this folder began to be its copy. */
const fileName = ".copy-of-redis.json";
const fileSchema = z.record(z.string(), z.string());
const namesAtOnce = 64;
const shownNames = 5;

export async function openOwnState(options: OwnStateOptions): Promise<OwnState> {
  const { redis, usersDir, followers, ledger, documents } = options;
  const path = join(usersDir, fileName);
  let begun = await readJsonFile(path, fileSchema, {});
  let size = ledger.accounts.size;
  try {
    for await (const { text } of documents.all()) size += text === "" ? 0 : 1;
  } catch {
    // One that cannot be read is named where it is needed.
  }
  /** Tags of which Redis had nothing. */
  let empty = new Set<string>();

  async function check(): Promise<void> {
    const epochs: Record<string, string> = {};
    const unknown = new Set<string>();
    empty = new Set();
    for (const follower of followers) {
      const { tag } = follower;
      const page = await readLogPage(redis, tag, streamStart, 1);
      const isLater = [follower.epoch(), begun[tag] ?? ""].some(
        (epoch) => epoch !== "" && (page.epoch === epoch || page.before.includes(epoch)),
      );
      // Also where Redis is back in a state from before a loss that this folder has been through.
      const isKnown = isLater || follower.epochs().includes(page.epoch);
      if (page.epoch === "") empty.add(tag);
      else if (!isKnown) {
        unknown.add(tag);
        epochs[tag] = page.epoch;
      }
    }
    if (unknown.size === 0) return;
    await compare(unknown);
    // A copy that is interrupted goes on at the next start, also where something in Redis is gone by then.
    begun = { ...begun, ...epochs };
    await writeFileAtomic(path, `${JSON.stringify(begun)}\n`);
  }

  async function compare(tags: ReadonlySet<string>): Promise<void> {
    if (tags.size === 0) return;
    const keys: { readonly name: string; readonly key: string }[] = [];
    for await (const { kind, name } of documents.all()) {
      const tag = tagOfDocument(redis, kind, name);
      if (tags.has(tag)) keys.push({ name: `${kind}/${name}`, key: redis.keyIn(tag, "doc", `${kind}/${name}`) });
    }
    for (const { name, counts } of ledger.accounts.values()) {
      const tag = redis.tagOf(name);
      if (tags.has(tag) && counts.hasBegun)
        keys.push({ name: `what ${name} has used`, key: redis.keyIn(tag, "acct", name) });
    }
    const missing: string[] = [];
    for (let at = 0; at < keys.length; at += namesAtOnce) {
      const some = keys.slice(at, at + namesAtOnce);
      const found = await Promise.all(some.map(({ key }) => redis.send(key, ["EXISTS", key])));
      missing.push(...some.flatMap(({ name }, index) => (found[index] === 0 ? [name] : [])));
    }
    if (missing.length > 0) throw foreign(usersDir, missing);
  }

  return {
    check,
    checkAgain: () => compare(empty),
    size: () => size,
  };
}

function foreign(usersDir: string, missing: string[]): ForeignStateError {
  // Users come first: they say most about whose state it is.
  const names = missing.sort(
    (a, b) => Number(b.startsWith("users/")) - Number(a.startsWith("users/")) || (a < b ? -1 : 1),
  );
  const more = missing.length > shownNames ? `, and ${missing.length - shownNames} more` : "";
  return new ForeignStateError(
    `${usersDir} has a state of its own, and Redis has another one, without ${names.slice(0, shownNames).join(", ")}${more}. ` +
      "Nothing was changed. To use what the folder has, choose another state.key_prefix and start this process first; " +
      "to use what Redis has, move the folder away and start with an empty one",
  );
}
