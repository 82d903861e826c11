import { argon2id, type Hasher } from "../../src/identity/passwords/password.ts";

const hashes = new Map<string, Promise<string>>();
const verified = new Map<string, Promise<boolean>>();

/**
 * argon2id, run once for the same work: most tests log in with the same password, and each run takes 20 ms of a core.
 * Tests of how logins share and wait for it take `argon2id` itself.
 */
export const oncePerPassword: Hasher = {
  hash: (password) => remember(hashes, password, () => argon2id.hash(password)),
  verify: (hash, password) => remember(verified, `${hash} ${password}`, () => argon2id.verify(hash, password)),
};

function remember<T>(results: Map<string, Promise<T>>, key: string, run: () => Promise<T>): Promise<T> {
  const known = results.get(key);
  if (known !== undefined) return known;
  const result = run();
  results.set(key, result);
  return result;
}
