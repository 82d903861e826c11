import { createLibrary, type FunctionLibrary } from "./lib/redis/library.ts";

/** The parts of the library that runs in Redis, in their order: each may use what those before it put into `lib`. */
const parts: readonly string[] = [
  "./replica/log.lua",
  "./identity/redis/identity.lua",
  "./identity/redis/guard.lua",
  "./limits/redis/rates.lua",
  "./quota/redis/ledger.lua",
  "./limits/redis/permits.lua",
  "./fleet/fleet.lua",
  "./risk/redis/trust.lua",
];

/**
 * The functions of all domains. Reads their files.
 *
 * @param more parts behind those of the program
 */
export function createRedisLibrary(more: readonly URL[] = []): FunctionLibrary {
  return createLibrary([...parts.map((part) => new URL(part, import.meta.url)), ...more]);
}
