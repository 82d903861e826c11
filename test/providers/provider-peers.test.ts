import { expect, it } from "vitest";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { createAlerts } from "../../src/providers/alerts.ts";
import { createProviderPeers, type Peers } from "../../src/providers/provider-peers.ts";
import type { ProbeResult } from "../../src/providers/provider-probes.ts";
import type { Provider } from "../../src/providers/provider.ts";
import { UpstreamError } from "../../src/providers/upstream-error.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { eventually } from "../support/eventually.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { testProvider } from "../support/provider.ts";

const clock = createManualClock(1_000_000);
const healthy: ProbeResult = { at: 5, ok: true, reason: null, balance: { available: true, amounts: [] } };

/** Processes with the same provider, which hear of each other. */
function processes(count: number) {
  const listeners: { from: number; topic: string; hear: (value: string) => void }[] = [];
  const claimed = new Set<string>();
  return Array.from({ length: count }, (_, id) => {
    const provider = testProvider("main");
    const learned: ProbeResult[] = [];
    const events: ProxyEvent[] = [];
    const peers = createProviderPeers({
      clock,
      log: createCapturedLog(),
      providers: () => [provider],
      probes: () => ({ learn: (_provider: Provider, result: ProbeResult) => learned.push(result) }),
    });
    const joined: Peers = {
      leads: () => id === 0,
      claim(name) {
        if (claimed.has(name)) return Promise.resolve(false);
        claimed.add(name);
        return Promise.resolve(true);
      },
      tell(topic, _name, value) {
        for (const one of listeners) if (one.from !== id && one.topic === topic) one.hear(value);
        return Promise.resolve();
      },
      listen: (topic, hear) => listeners.push({ from: id, topic, hear }),
    };
    peers.join(joined);
    peers.watch([provider]);
    const emit = (event: ProxyEvent): void => void events.push(event);
    const alerts = createAlerts({ emit, clock, claim: (subject, ms) => peers.claimAlert(subject, ms) });
    return { id, provider, peers, learned, events, alerts, joined };
  });
}

const broken = new UpstreamError({ kind: "server_error", stage: "first_event", status: 500 });

it("one process probes, and the others know what it has found", () => {
  const [leader, other] = processes(2);
  expect([leader?.peers.mayProbe(), other?.peers.mayProbe()]).toEqual([true, false]);
  if (leader !== undefined) leader.peers.tellProbe(leader.provider, healthy);
  expect([leader?.learned, other?.learned]).toEqual([[], [healthy]]);
  other?.joined.tell("probe", "", "not JSON").catch(() => undefined);
  other?.joined.tell("probe", "", '{"provider":"main"}').catch(() => undefined);
  expect(leader?.learned).toEqual([]);
});

it("of three processes that find a key refused one says so, and each of them where nobody can be asked", async () => {
  const all = processes(3);
  for (const { alerts, provider } of all) alerts.raise(provider, "key_refused", "t");
  await eventually(() => {
    expect(all.map(({ events }) => events.length)).toEqual([1, 0, 0]);
  });
  const lost = processes(2);
  for (const { peers, joined, alerts, provider } of lost) {
    peers.join({ ...joined, claim: () => Promise.reject(new Error("away")) });
    alerts.raise(provider, "no_balance", "t");
  }
  await eventually(() => {
    expect(lost.map(({ events }) => events.length)).toEqual([1, 1]);
  });
});

it("a circuit that opens at one process makes the next request of another a probe, whose result decides", () => {
  const [one, other] = processes(2);
  if (one === undefined || other === undefined) throw new Error("two were made");
  const now = clock.monotonic();
  for (let i = 0; i < 20; i++) {
    const pass = one.provider.health.enterAsTrial({ model: "m", user: `u${i}` }, now);
    if (pass === null) break;
    one.provider.health.sent();
    one.provider.health.failed(pass, broken, now);
  }
  const { health } = other.provider;
  expect([...one.provider.health.circuits(now), ...health.circuits(now)].map(({ breaker }) => breaker)).toEqual([
    "open",
    "half_open",
  ]);
  const probe = health.enter({ model: "m", user: "x" }, now);
  expect(probe).not.toBeNull();
  expect(health.enter({ model: "m", user: "y" }, now)).toBeNull();
  expect(health.enter({ model: "n", user: "y" }, now)).not.toBeNull();
  if (probe !== null) health.responded(probe, 5, now);
  expect(health.circuits(now)).toEqual([]);
  // What is long over is of no interest to a process that starts.
  clock.advance(1e6);
  const stale = JSON.stringify({ provider: "main", key: 0, model: null, until: clock.now() - 1 });
  one.joined.tell("circuit", "", stale).catch(() => undefined);
  expect(health.accountState(clock.monotonic())).toBe("closed");
});
