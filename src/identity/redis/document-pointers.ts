import type { Redis } from "../../lib/redis/redis.ts";
import { pointerKey, type PointerKind } from "./documents.ts";
import { createKeyFormat } from "./redis-api-keys.ts";
import { createSessionFormat } from "./redis-sessions.ts";

/** A plain key of Redis that says whose a session, a refresh family or an API key is. */
export interface PointerEntry {
  readonly key: string;
  /** Its slot tag, which is not that of the document. */
  readonly tag: string;
  readonly user: string;
  /** ms until it may go; undefined: never. */
  readonly lifeMs: number | undefined;
}

/** Longer than any session: one that is over is refused by its document. */
const sessionLifeMs = 400 * 86_400_000;

/**
 * Creates the list of pointers that belong to a document. They are not in the log: whoever puts documents back into
 * Redis, or brings them there for the first time, sets them before.
 */
export function createPointersOf(
  redis: Pick<Redis, "tagOf" | "keyIn">,
): (document: { readonly kind: string; readonly name: string; readonly text: string }) => readonly PointerEntry[] {
  const keys = createKeyFormat();
  const sessions = createSessionFormat();
  const entry = (kind: PointerKind, id: string, user: string, lifeMs?: number): PointerEntry => {
    return { key: pointerKey(redis, kind, id), tag: redis.tagOf(id), user, lifeMs };
  };
  return ({ kind, name, text }) => {
    if (kind === "keys") return keys.parse(name, text).rows.map(({ entry: { row } }) => entry("key", row.hash, name));
    if (kind !== "sessions") return [];
    return sessions
      .parse(name, text)
      .rows.flatMap(({ entry: { id, family } }) => [
        entry("session", id, name, sessionLifeMs),
        entry("family", family, name, sessionLifeMs),
      ]);
  };
}
