/** From where each account has logged in lately. */
export interface KnownAddresses {
  has(user: string, address: string): boolean;
  add(user: string, address: string): void;
  of(user: string): readonly string[];
}

/** Addresses remembered for a user, and users remembered; beyond it the one used longest ago is forgotten. */
const maxOfUser = 8;
const maxUsers = 100_000;

/** Remembers for `keepMs` after the last login. In memory only: after a restart no address is known. */
export function createKnownAddresses(keepMs: number, monotonic: () => number): KnownAddresses {
  /** When each address was last used, in monotonic ms. */
  const users = new Map<string, Map<string, number>>();

  const isFresh = (usedAt: number | undefined): boolean => usedAt !== undefined && monotonic() - usedAt < keepMs;

  return {
    has: (user, address) => isFresh(users.get(user)?.get(address)),
    add(user, address) {
      const addresses = users.get(user) ?? new Map<string, number>();
      setLast(users, user, addresses, maxUsers);
      setLast(addresses, address, monotonic(), maxOfUser);
    },
    of: (user) => [...(users.get(user)?.keys() ?? [])],
  };
}

/** Sets a key as the youngest and drops the oldest where there are too many. */
function setLast<V>(map: Map<string, V>, key: string, value: V, max: number): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > max && oldest !== undefined) map.delete(oldest);
}
