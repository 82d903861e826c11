import type { FastifyRequest } from "fastify";
import { chooseGroup } from "../gateway/choose-group.ts";
import type { Group, Groups } from "../identity/groups.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import { accountOfRequest } from "./plugins/authenticate.ts";

/** The value of X-Group; null if there is none. One that came twice is no name of a group. */
export function groupHeaderOf({ headers }: FastifyRequest): string | null {
  const value = headers["x-group"];
  return value === undefined ? null : String(value);
}

/** The group that a chat with the same headers would count for; throws as chooseGroup. */
export function groupOfRequest(
  request: FastifyRequest,
  groups: Pick<Groups, "get" | "ofUser">,
): Awaitable<Group | null> {
  const { apiKey } = request;
  return chooseGroup({ groupHeader: groupHeaderOf(request), apiKey, account: accountOfRequest(request) }, groups);
}
