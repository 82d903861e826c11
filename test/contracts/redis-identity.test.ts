import { createCapturedLog } from "../support/captured-log.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import {
  describeWithRedis,
  describeWithValkey,
  useRedis,
  useRedisCluster,
  useValkey,
} from "../support/redis-server.ts";
import { openRedisExternalLogins } from "../../src/identity/redis/redis-external-logins.ts";
import { openRedisNonces } from "../../src/identity/redis/redis-nonces.ts";
import {
  documentsOf,
  groupsOver,
  guardOver,
  keysOver,
  repeating,
  seed,
  sessionsOver,
  usersOver,
} from "../support/redis-identity.ts";
import { describeApiKeys } from "./api-keys.ts";
import { describeExternalLogins } from "./external-logins.ts";
import { describeGroups } from "./groups.ts";
import { describeLoginGuard } from "./login-guard.ts";
import { describeNonces } from "./nonces.ts";
import { describeSessions } from "./sessions.ts";
import { describeUsers } from "./users.ts";

describeWithRedis("over Redis", () => {
  describeIdentity("in Redis", useRedis().open);
});

describeWithRedis("over Redis, with every answer lost once", () => {
  const { open } = useRedis();
  describeIdentity("in Redis, each call twice", async () => repeating(await open()));
});

describeWithValkey("over Valkey", () => {
  describeIdentity("in Valkey", useValkey().open);
});

describeWithRedis("over a cluster of Redis", () => {
  describeIdentity("in a cluster", useRedisCluster().open);
});

/** All suites. */
function describeIdentity(where: string, open: () => Promise<Redis>): void {
  const opened = async (): Promise<Redis> => {
    const redis = await open();
    await seed(redis);
    return redis;
  };
  describeUsers(`users ${where}`, async (clock) => usersOver(await opened(), { clock }));
  describeSessions(`sessions ${where}`, async ({ clock, findAccount }) =>
    sessionsOver(await opened(), { clock, findAccount, now: () => clock.now() }),
  );
  describeApiKeys(`API keys ${where}`, async (clock) => keysOver(await opened(), clock));
  describeGroups(`groups ${where}`, async () => groupsOver(await opened()));
  describeExternalLogins(`linked logins ${where}`, async () =>
    openRedisExternalLogins(documentsOf(await opened()), createCapturedLog()),
  );
  describeLoginGuard(`the login guard ${where}`, async (clock) => guardOver(await opened(), clock));
  describeNonces(`nonces ${where}`, async (clock) => openRedisNonces(await opened(), () => clock.now()));
}
