import type { ProxyEvent } from "../types.ts";

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
  if (event.type === "request.finished" || event.type === "provider.alert") return null;
  if (event.user === null) return null;
  const known = !("known" in event) || event.known;
  return known && userName.test(event.user) ? event.user : unknownFolder;
}

/**
 * An event as a line of JSON with its line feed: `ts`, then the facts.
 *
 * @param facts as createEventText gives them
 * @param time ISO 8601, UTC
 */
export function behaviourLine(facts: string, time: string): string {
  return `{"ts":"${time}",${facts.slice(1)}\n`;
}
