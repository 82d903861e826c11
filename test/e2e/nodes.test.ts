import { afterEach, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { quotaOf, usedRequests } from "../support/quota.ts";
import { describeWithRedis, newPrefix, openTestRedis, useRedis } from "../support/redis-server.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const messages = [{ role: "user", content: "Say hello." }];

describeWithRedis("several proxies over one Redis", () => {
  const redisServer = useRedis(["--appendonly", "yes", "--appendfsync", "always"]);
  const running: RunningProxy[] = [];

  afterEach(async () => {
    await Promise.all(running.splice(0).map((proxy) => proxy.dispose()));
  });

  const redises = new Map<RunningProxy, { readonly url: string; readonly keyPrefix: string; readonly state: string }>();
  /** That of a proxy that was started. */
  function redisOf(proxy: RunningProxy) {
    const redis = redises.get(proxy);
    if (redis === undefined) throw new Error("it was not started here");
    return redis;
  }

  /** Starts `count` of them; the first one's folder has the users alice and root. */
  async function startNodes(count: number, config: string, state: string): Promise<RunningProxy[]> {
    const redis = { url: redisServer.server().url, keyPrefix: newPrefix(), state };
    const users = {
      alice: userFile("alice", alicePassword),
      root: userFile("root", alicePassword, 'roles = ["user", "admin"]\n'),
    };
    const started: RunningProxy[] = [];
    for (let i = 0; i < count; i++) {
      const proxy = await startProxy({ config, redis, users: i === 0 ? users : {} });
      started.push(proxy);
      redises.set(proxy, redis);
      running.push(proxy);
    }
    return started;
  }

  const chat = (proxy: RunningProxy, token: string, more: object = {}): Promise<Response> =>
    post(`${proxy.url}/v1/chat/completions`, { model: "sim-fast", stream: false, messages, ...more }, bearer(token));

  async function two(config = "", state = ""): Promise<readonly [RunningProxy, RunningProxy, string]> {
    const [one, other] = await startNodes(2, config, state);
    if (one === undefined || other === undefined) throw new Error("two were started");
    return [one, other, await one.login()];
  }

  it("take each other's tokens, keys and charges", async () => {
    const [one, other, token] = await two();
    expect((await chat(one, token)).status).toBe(200);
    expect((await chat(other, token)).status).toBe(200);
    expect([await usedRequests(one, token), await usedRequests(other, token)]).toEqual([2, 2]);
    const made = await post(`${other.url}/auth/keys`, { name: "laptop" }, bearer(token));
    const { key } = (await made.json()) as { key: string };
    expect((await chat(one, key)).status).toBe(200);
    const usage = await fetch(`${one.url}/auth/usage`, { headers: bearer(token) });
    expect(await usage.text()).toContain('"requests":3');
  });

  it("sell a user's last units once", async () => {
    const [one, other, token] = await two(
      "[quota.tiers]\nbasic = { requests = 10 }\n[concurrency]\nmax_parallel = 100\n",
    );
    const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => chat(i % 2 === 0 ? one : other, token)));
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(10);
    expect(statuses.filter((status) => status === 402)).toHaveLength(30);
    expect(await quotaOf(other, token)).toMatchObject([{ used: 10, reserved: 0 }]);
  });

  it("hold the permits and the quota of running requests again where Redis has lost everything", async () => {
    const [one, other, token] = await two(
      "[quota.tiers]\nbasic = { requests = 2 }\n[concurrency]\nmax_parallel = 1\nmax_wait_ms = 0\n",
    );
    const leaving = new AbortController();
    const running = await fetch(`${one.url}/v1/chat/completions`, {
      method: "POST",
      headers: { ...bearer(token), "content-type": "application/json" },
      body: JSON.stringify({ model: "sim-paced:1", stream: true, messages }),
      signal: leaving.signal,
    });
    expect(running.status).toBe(200);
    const client = await openTestRedis(redisOf(one));
    await client.send("", ["FLUSHALL"]);
    // Until what was lost is back, requests are refused.
    await eventually(async () => {
      expect(await quotaOf(other, token)).toMatchObject([{ used: 1 }]);
    });
    expect((await chat(other, token)).status).toBe(429);
    leaving.abort();
    await eventually(async () => {
      expect((await chat(other, token)).status).toBe(200);
    });
    expect((await chat(other, token)).status).toBe(402);
  });

  it("know the trust step to which another one has moved a user", async () => {
    const risk = "[risk]\nenabled = true\nmin_requests = 1\n[risk.signals.failures]\npoints = 60\nfrom = 0\nto = 0.5\n";
    const [one, other, token] = await two(risk);
    const root = bearer(await one.login("root"));
    const stepAt = async (proxy: RunningProxy): Promise<unknown> => {
      const answer = await fetch(`${proxy.url}/admin/risk/alice`, { headers: root });
      return ((await answer.json()) as { step: unknown }).step;
    };
    const before = await stepAt(one);
    expect(await stepAt(other)).toBe(before);
    expect((await chat(one, token, { messages: 1 })).status).toBe(400);
    await eventually(async () => {
      const [here, there] = [await stepAt(one), await stepAt(other)];
      expect(here).not.toBe(before);
      expect(there).toBe(here);
    });
  });

  it("share rates", async () => {
    const rule = '[[limits]]\nname = "slow"\nby = "user"\nmetric = "requests"\nper = "hour"\nmax = 5\nburst = 5\n';
    const [one, other, token] = await two(rule);
    const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => chat(i % 2 === 0 ? one : other, token)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(5);
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(7);
  });

  it("refuse everywhere within a second what one of them has ended", async () => {
    const [one, other, token] = await two();
    const { key, id } = (await (await post(`${one.url}/auth/keys`, { name: "x" }, bearer(token))).json()) as {
      key: string;
      id: string;
    };
    expect((await chat(other, key)).status).toBe(200);
    await fetch(`${one.url}/auth/keys/${id}`, { method: "DELETE", headers: bearer(token) });
    await eventually(async () => {
      expect((await chat(other, key)).status).toBe(401);
    }, 1000);
    const admin = await one.login("root");
    await fetch(`${other.url}/admin/users/alice`, {
      method: "PATCH",
      headers: { ...bearer(admin), "content-type": "application/json" },
      body: JSON.stringify({ is_active: false }),
    });
    await eventually(async () => {
      expect((await chat(one, token)).status).toBeGreaterThanOrEqual(401);
    }, 1000);
  });

  it("drain a provider together, and name each other to administrators", async () => {
    const [one, other] = await two();
    const admin = bearer(await one.login("root"));
    const provider = async (proxy: RunningProxy): Promise<string> => {
      const answer = await fetch(`${proxy.url}/admin/providers`, { headers: admin });
      return ((await answer.json()) as { providers: { state: string }[] }).providers[0]?.state ?? "";
    };
    await post(`${one.url}/admin/providers/simulator/drain`, { reason: "test" }, admin);
    await eventually(async () => {
      expect(await provider(other)).toBe("drained");
    }, 2000);
    const { nodes } = (await (await fetch(`${other.url}/admin/nodes`, { headers: admin })).json()) as {
      nodes: { this: boolean; leader: boolean }[];
    };
    expect(nodes.map((node) => node.this).sort()).toEqual([false, true]);
    expect(nodes.filter(({ leader }) => leader)).toHaveLength(1);
    expect(await (await fetch(`${one.url}/metrics`)).text()).toContain("redis_connected 1");
  });

  it("go on where Redis is restarted, with nothing lost", async () => {
    const [one, other, token] = await two();
    expect((await chat(one, token)).status).toBe(200);
    await redisServer.server().restart();
    await eventually(async () => {
      expect((await chat(other, token)).status).toBe(200);
    });
    await eventually(async () => {
      expect(await usedRequests(one, token)).toBe(2);
    });
  });

  it("put everything back where Redis has lost it", async () => {
    const [one, other, token] = await two();
    for (const proxy of [one, other, one]) expect((await chat(proxy, token)).status).toBe(200);
    await one.services.redis?.onEveryServer(["FLUSHALL"]);
    await eventually(async () => {
      expect((await chat(other, token)).status).toBe(200);
    }, 20_000);
    expect(await usedRequests(one, token)).toBe(4);

    // Among it the secret of the tokens: one that starts now takes those of the others, and they take its.
    const third = await startProxy({ redis: redisOf(one), users: {} });
    running.push(third);
    expect((await chat(third, token)).status).toBe(200);
    expect((await chat(other, await third.login())).status).toBe(200);
  });

  it("serve those whom they know while Redis does not answer, where they are to, and charge it afterwards", async () => {
    const state = 'when_away = "allowance"\nallowance_share = 0.1\ntimeout_ms = 500\n';
    const quota = "[quota.tiers]\nbasic = { requests = 100 }\n";
    const [one, other, token] = await two(`${quota}[concurrency]\nmax_parallel = 8\n`, state);
    expect((await chat(one, token)).status).toBe(200);
    const health = async (): Promise<string> => (await fetch(`${one.url}/metrics`)).text();
    await eventually(async () => {
      expect(await health()).toContain("allowance_held 1");
    });
    redisServer.server().pause();
    try {
      const statuses = [];
      for (let i = 0; i < 12; i++) statuses.push((await chat(one, token)).status);
      expect(statuses).toEqual([...Array.from({ length: 10 }, () => 200), 503, 503]);
      // Nothing was held there for her; and nobody new is let in.
      expect((await chat(other, token)).status).toBe(503);
      const login = { username: "alice", password: alicePassword };
      expect((await post(`${one.url}/auth/login`, login)).status).toBe(503);
      expect((await fetch(`${one.url}/readyz`)).status).toBe(200);
      expect(await health()).toMatch(/allowance_serving 1[^]*allowance_unreported_charges 10/);
    } finally {
      redisServer.server().resume();
    }
    await eventually(async () => {
      expect(await usedRequests(other, token)).toBe(11);
      expect(await quotaOf(one, token)).toMatchObject([{ used: 11, reserved: 0 }]);
    });
    expect((await chat(other, token)).status).toBe(200);
  });

  it("say 503 while Redis does not answer, and recover by themselves", async () => {
    const [one, , token] = await two();
    redisServer.server().pause();
    try {
      const answer = await chat(one, token);
      expect(answer.status).toBe(503);
      expect(answer.headers.get("retry-after")).not.toBeNull();
      expect((await fetch(`${one.url}/livez`)).status).toBe(200);
    } finally {
      redisServer.server().resume();
    }
    await eventually(async () => {
      expect((await chat(one, token)).status).toBe(200);
    });
  });
});
