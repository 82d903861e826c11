import { eventFacts } from "./event-facts.ts";
import type { ProxyEvent } from "./types.ts";

/** Holds what was tried with names that no account has. No user name can begin with an underscore. */
const unknownFolder = "_unknown";

const userName = /^[a-z0-9][a-z0-9_-]{0,31}$/;

/** Whether a folder under logs/users/ is one of ours. */
export function isBehaviourFolder(name: string): boolean {
  return name === unknownFolder || userName.test(name);
}

/**
 * The folder whose log an event goes to, or null where it is about no user. Folders are made from names, so only
 * those of known accounts get one: else anyone could fill the disk with folders by failing to log in.
 */
export function behaviourFolder(event: ProxyEvent): string | null {
  if (event.type === "request.failed" || event.type === "provider.alert") return null;
  if (event.user === null) return null;
  const known = !("known" in event) || event.known;
  return known && userName.test(event.user) ? event.user : unknownFolder;
}

/** An event as a line of JSON with its line feed: `ts` (ISO, UTC; `isoTime` makes it), then the facts. */
export function behaviourLine(event: ProxyEvent, isoTime: (ms: number) => string): string {
  const facts = JSON.stringify(eventFacts(event));
  return `{"ts":"${isoTime(event.at)}",${facts.slice(1)}\n`;
}
