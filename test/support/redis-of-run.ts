import { startRedisServer } from "./redis-server.ts";

/** For E2E_BACKENDS=redis: one server for all test files. */
export async function setup(): Promise<() => Promise<void>> {
  const server = await startRedisServer();
  process.env.E2E_REDIS_URL = server.url;
  return () => server.close();
}
