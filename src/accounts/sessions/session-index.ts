import type { Session } from "./session.ts";

/** The live sessions, found in three ways. */
export interface SessionIndex {
  get(id: string): Session | undefined;
  /** @param family digest of the family */
  ofFamily(family: string): Session | undefined;
  ofUser(user: string): readonly Session[];
  /** Adds a session, or puts it in place of the one with its id. */
  put(session: Session): void;
  /** Whether it was there. */
  drop(session: Session): boolean;
}

/** Makes an empty index. */
export function createSessionIndex(): SessionIndex {
  const byId = new Map<string, Session>();
  const idOfFamily = new Map<string, string>();
  const idsOfUser = new Map<string, Set<string>>();
  const get = (id: string) => byId.get(id);

  return {
    get,
    ofFamily: (family) => get(idOfFamily.get(family) ?? ""),
    ofUser: (user) => [...(idsOfUser.get(user) ?? [])].map(get).filter((session) => session !== undefined),
    put(session) {
      const { id, family, user } = session;
      byId.set(id, session);
      idOfFamily.set(family, id);
      const ids = idsOfUser.get(user);
      if (ids === undefined) idsOfUser.set(user, new Set([id]));
      else ids.add(id);
    },
    drop({ id, family, user }) {
      const ids = idsOfUser.get(user);
      ids?.delete(id);
      if (ids?.size === 0) idsOfUser.delete(user);
      idOfFamily.delete(family);
      return byId.delete(id);
    },
  };
}
