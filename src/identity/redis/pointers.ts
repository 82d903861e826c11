import type { Awaitable } from "../../lib/awaitable.ts";
import type { Documents, PointerKind } from "./documents.ts";
import { createFreshCache } from "./fresh-cache.ts";

/** Says whose a session, a refresh family or an API key is. The user's document says whether it is still valid. */
export interface Pointers {
  /** At once where it is known: what one points to never changes. */
  ownerOf(id: string): Awaitable<string | undefined>;
  /** Before the document that has it is written. @param lifeMs undefined: for ever */
  add(id: string, user: string, lifeMs?: number): Promise<void>;
  /** After it is in the document no more. If that fails, the pointer points to nothing. */
  remove(id: string): Promise<void>;
  /** It was looked for in its user's document, and is not there. */
  forget(id: string): void;
}

/** One that exists never changes; one that does not may come. */
const existingMs = 600_000;
const missingMs = 900;

export function createPointers(documents: Documents, kind: PointerKind, monotonic: () => number): Pointers {
  const cache = createFreshCache<string>({
    read: (id) => documents.owner(kind, id),
    trustedAwayMs: documents.trustedAwayMs,
    maxAgeMs: (owner) => (owner === undefined ? missingMs : existingMs),
    monotonic,
  });
  return {
    ownerOf: (id) => cache.get(id),
    async add(id, user, lifeMs) {
      await documents.point(kind, id, user, lifeMs);
      cache.forget(id);
    },
    async remove(id) {
      await documents.unpoint(kind, id).finally(() => {
        cache.forget(id);
      });
    },
    forget: (id) => {
      cache.forget(id);
    },
  };
}
