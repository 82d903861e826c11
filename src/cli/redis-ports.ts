import { randomUUID } from "node:crypto";
import { openRedisIdentity } from "../identity/redis/open-redis-identity.ts";
import { systemClock as clock } from "../lib/clock.ts";
import type { Redis } from "../lib/redis/redis.ts";
import { connectState } from "../open-redis-state.ts";
import type { LedgerReplica } from "../quota/redis/ledger-replica.ts";
import { openRedisLedger } from "../quota/redis/redis-ledger.ts";
import { readLogPage, streamStart } from "../replica/log-page.ts";
import type { StateOptions, StatePorts } from "./state-ports.ts";
import { silent } from "./this-process.ts";

/**
 * Opens the state that all servers share. Nothing of the users folder is read or locked: it is a copy, into which a
 * server takes what the command has written from the log.
 *
 * @throws ConfigError where REDIS_URL is missing or leads nowhere; an Error where Redis has no whole state
 */
export async function openRedisPorts({ config, io, hashPassword, onOpen }: StateOptions): Promise<StatePorts> {
  const { auth, panel, security, groups, quota, state, storage } = config;
  const redis = await connectState({ env: io.env, config, clock, log: silent });
  onOpen(() => redis.close());
  await checkWhole(redis);
  const shared = { redis, clock, log: silent, newId: randomUUID };
  const identity = await openRedisIdentity({
    ...shared,
    groups,
    hashPassword,
    auth: () => auth,
    panel: () => panel,
    security: () => security,
    tierNames: () => Object.keys(quota.tiers),
    emit: () => undefined,
    lastSeq: () => "0",
  });
  onOpen(() => identity.close());
  const { users, sessions, apiKeys, externalLogins } = identity;
  const access = { sessions, apiKeys, externalLogins };
  return {
    users,
    access,
    openAccess: () => Promise.resolve(access),
    async openLedger() {
      const ledger = await openRedisLedger({ ...shared, replica: noReplica, quota, state, storage });
      onOpen(() => ledger.close());
      return ledger;
    },
    bringBack: () =>
      Promise.reject(
        new Error(
          'bring-back works on the users folder, but state.backend is "redis": stop all servers, npm run state -- export, ' +
            'bring-back with state.backend = "files", and npm run state -- import with another state.key_prefix',
        ),
      ),
  };
}

/** A change to what is not whole would be taken for the truth. Throws. */
async function checkWhole(redis: Redis): Promise<void> {
  const pages = await Promise.all(redis.tags.map((tag) => readLogPage(redis, tag, streamStart, 1)));
  if (pages.every(({ epoch }) => epoch === "")) {
    const ways = "the start of a server, or npm run state -- import, brings that of a users folder into it";
    throw new Error(`Redis has no state under state.key_prefix: ${ways}`);
  }
  if (pages.some(({ epoch, fence }) => epoch === "" || fence === "mend"))
    throw new Error("what Redis had lost is being put back by the servers that run: try again in a moment");
}

/** A command has seen nothing before. What Redis has lost is put back by servers, which have. */
const noReplica: LedgerReplica = {
  lastSeq: () => 0,
  hasBegun: () => false,
  note: () => undefined,
  beforeOpening: () => undefined,
  refusal: () => undefined,
  repair: () => Promise.reject(new Error("Redis has lost what it had, or is being copied: try again in a moment")),
  usage: () => Promise.reject(noUsage()),
  usageOfAll: () => {
    throw noUsage();
  },
  recorded: () => {
    throw noUsage();
  },
  missingBefore: () => null,
  problems: () => [],
};

function noUsage(): Error {
  return new Error("the usage history is in the copy of each server");
}
