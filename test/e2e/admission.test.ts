import { afterEach, describe, expect, it } from "vitest";
import type { Backends } from "../../src/backends.ts";
import { slowBackends } from "../support/backends.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";

/** Backends of which these calls are answered only once all of them have been made: who asks one by one waits for ever. */
function answeredTogether(own: Backends, calls: readonly string[]): Backends {
  const asked = new Set<string>();
  let wake: (() => void)[] = [];
  return slowBackends(own, (call) => {
    if (!calls.includes(call)) return Promise.resolve();
    asked.add(call);
    return new Promise((resolve) => {
      wake.push(resolve);
      if (asked.size < calls.length) return;
      for (const one of wake) one();
      wake = [];
      asked.clear();
    });
  });
}

const limits = [{ metric: "requests", per: "day", max: 10 }] as const;

describe("backends behind a network", () => {
  let proxy: RunningProxy;
  let token: string;
  afterEach(() => proxy.dispose());

  const chat = (model = "sim-fast", onSent?: (leave: () => void) => void): Promise<SseClient> =>
    openStream(`${proxy.url}/v1/chat/completions`, {
      headers: bearer(token),
      body: { model, stream: true, messages: [{ role: "user", content: "Say hello." }] },
      ...(onSent === undefined ? {} : { onSent }),
    });

  /** A request that gets no first event; returns what ends it. */
  async function stall(): Promise<() => void> {
    let leave = (): void => undefined;
    chat("sim-stall-first", (go) => (leave = go)).catch(() => undefined);
    await eventually(async () => {
      expect(await proxy.services.ledger.buckets("alice", limits)).toMatchObject([{ reserved: 1 }]);
    });
    return () => {
      leave();
    };
  }

  async function start(options: Parameters<typeof startProxy>[0]): Promise<void> {
    proxy = await startProxy(options);
    token = await proxy.login();
  }

  it("are asked for permit, quota and rate at once", async () => {
    await start({ backends: (own) => answeredTogether(own, ["acquire", "reserve", "take"]) });
    const client = await chat();
    expect((await client.rest()).at(-1)?.raw).toContain("[DONE]");
    expect(await usedRequests(proxy, token)).toBe(1);
    expect(proxy.services.concurrency.inFlight()).toBe(0);
  });

  it.each([
    ["permit", "[concurrency]\nmax_parallel = 1\nmax_waiting = 0\n", "concurrency_exceeded"],
    ["quota", "[quota.tiers]\nbasic = { requests = 1 }\n", "quota_exceeded"],
    [
      "rate",
      "[[limits]]\nname = 'slow'\nby = 'user'\nmetric = 'requests'\nper = 'hour'\nmax = 1\nburst = 1\n",
      "rate_limited",
    ],
  ])("leave nothing taken where the %s is refused", async (_name, config, code) => {
    await start({ config, backends: (own) => slowBackends(own, () => Promise.resolve()) });
    const leave = await stall();
    const refused = await chat();
    await refused.ended;
    expect(refused.text).toContain(code);
    const [bucket] = await proxy.services.ledger.buckets("alice", limits);
    expect(bucket).toMatchObject({ reserved: 1 });
    expect(proxy.services.concurrency.inFlight()).toBe(1);
    leave();
    await eventually(() => {
      expect(proxy.services.concurrency.inFlight()).toBe(0);
    });
    expect(await proxy.services.ledger.buckets("alice", limits)).toMatchObject([{ reserved: 0 }]);
  });

  it("hold no quota for a request that waits for its permit", async () => {
    const config = "[concurrency]\nmax_parallel = 1\nmax_wait_ms = 60000\n";
    await start({ config, backends: (own) => slowBackends(own, () => Promise.resolve()) });
    const leave = await stall();
    const second = chat();
    const { concurrency, ledger } = proxy.services;
    await eventually(() => {
      expect(concurrency.waiting()).toBe(1);
    });
    await eventually(async () => {
      expect(await ledger.buckets("alice", limits)).toMatchObject([{ reserved: 1 }]);
    });
    leave();
    expect((await (await second).rest()).at(-1)?.raw).toContain("[DONE]");
    await eventually(async () => {
      expect(await ledger.buckets("alice", limits)).toMatchObject([{ reserved: 0, used: 1 }]);
    });
  });
});
