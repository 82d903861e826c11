import type { AccountView } from "../../src/quota/redis/account-calls.ts";
import type { HoldPart } from "../../src/quota/redis/hold-calls.ts";

/** A part of a request over a Redis that is made up: only its id counts. */
export function holdPart(id: string): HoldPart {
  const view = { tag: "00" } as AccountView;
  return { id, view, keys: ["hold", "leases"], member: id, chargedAt: undefined, holder: undefined, slot: -1 };
}
