import { hostname } from "node:os";

/**
 * The name of this process among others: NODE_NAME, else `HOSTNAME:PORT`.
 *
 * @param port the configured one; with 0, processes on one machine need a NODE_NAME to be told apart
 */
export function nodeName(env: Readonly<Record<string, string | undefined>>, port: number): string {
  const given = env.NODE_NAME?.trim() ?? "";
  return given === "" ? `${hostname()}:${port}` : given.slice(0, 128);
}
