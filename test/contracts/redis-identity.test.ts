import { describeWithRedis, useRedis } from "../support/redis-server.ts";
import { openRedisNonces } from "../../src/identity/redis/redis-nonces.ts";
import { groupsOver, guardOver, keysOver, seed, sessionsOver, usersOver } from "../support/redis-identity.ts";
import { describeApiKeys } from "./api-keys.ts";
import { describeGroups } from "./groups.ts";
import { describeLoginGuard } from "./login-guard.ts";
import { describeNonces } from "./nonces.ts";
import { describeSessions } from "./sessions.ts";
import { describeUsers } from "./users.ts";

describeWithRedis("over Redis", () => {
  const { open } = useRedis();
  const opened = async () => {
    const redis = await open();
    await seed(redis);
    return redis;
  };

  describeUsers("users in Redis", async (clock) => usersOver(await opened(), { clock }));
  describeSessions("sessions in Redis", async ({ clock, findAccount }) =>
    sessionsOver(await opened(), { clock, findAccount, now: () => clock.now() }),
  );
  describeApiKeys("API keys in Redis", async (clock) => keysOver(await opened(), clock));
  describeGroups("groups in Redis", async () => groupsOver(await opened()));
  describeLoginGuard("the login guard in Redis", async (clock) => guardOver(await opened(), clock));
  describeNonces("nonces in Redis", async (clock) => openRedisNonces(await opened(), () => clock.now()));
});
