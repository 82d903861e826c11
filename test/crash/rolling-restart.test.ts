import { beforeAll, describe, expect, it } from "vitest";
import { hasCaddy, startCaddy } from "../support/caddy.ts";
import { loginAll, startFleet, startFleetLoad, summaryOf, usedAt } from "../support/node-fleet.ts";
import { describeWithRedis, freePort, startRedisServer, type RedisServer } from "../support/redis-server.ts";
import { eventually } from "../support/eventually.ts";
import { compiledServer } from "../support/server-process.ts";
import { alicePassword, userFile } from "../support/start-proxy.ts";

const users = { anna: userFile("anna", alicePassword), ben: userFile("ben", alicePassword) };
/** As in deploy/config.toml: the balancer asks /readyz every 2 s. */
const config = `
[server]
shutdown_delay_seconds = 5
shutdown_seconds = 60
[quota.tiers.basic]
limits = [{ metric = "requests", per = "total", max = 1000000 }]
[rate_limit]
requests_per_second = 100000
per_user = 100000
`;

describeWithRedis("a rolling restart", () => {
  describe.skipIf(!hasCaddy)("behind the balancer of deploy/", () => {
    let redis: RedisServer;

    beforeAll(async () => {
      compiledServer();
      redis = await startRedisServer();
      return () => redis.close();
    });

    it("refuses no request, breaks no stream, and charges each once", async () => {
      const ports = [await freePort(), await freePort(), await freePort()];
      const nodes = await startFleet({ redisUrls: ports.map(() => redis.url), users, ports, config });
      const balancer = await startCaddy(ports);
      const tokens = await loginAll(balancer, Object.keys(users));
      const load = startFleetLoad({ nodes: [balancer], tokens, workersEach: 3, pauseMs: 10 });

      await load.more(50);
      for (const node of nodes) {
        await node.restart();
        await load.more(50);
      }
      await load.stop();

      const { chats } = load;
      expect(chats.filter(({ done }) => !done)).toEqual([]);
      expect(summaryOf(chats)).toBe(JSON.stringify({ "200 charged done": chats.length }));
      for (const [user, token] of tokens) {
        const own = chats.filter((chat) => chat.user === user).length;
        await eventually(async () => {
          expect(await usedAt(nodes, token)).toEqual(nodes.map(() => [own]));
        }, 30_000);
      }
      // Three times five seconds of delay, and as many starts.
    }, 240_000);
  });
});
