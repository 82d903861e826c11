import { createHash } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { ProbeResult, ProviderProbes } from "./provider-probes.ts";
import type { Provider } from "./provider.ts";

/** What a process needs of the others, which have the same providers. */
export interface Peers {
  /** Whether this process does what only one of them does. */
  leads(): boolean;
  /** Whether this process is the first to claim a name within so many ms. Rejects if that can't be asked. */
  claim(name: string, ms: number): Promise<boolean>;
  /** Tells the others, now and those that start later. The names of a topic are few. */
  tell(topic: PeerTopic, name: string, value: string): Promise<void>;
  /** Calls the listener with what others have told. */
  listen(topic: PeerTopic, listener: (value: string) => void): void;
}

type PeerTopic = "probe" | "circuit";

/** What processes tell each other of providers: what one has probed, and that a circuit is open. */
export interface ProviderPeers {
  join(peers: Peers): void;
  /** Whether this process probes the providers. */
  mayProbe(): boolean;
  /** Whether no other process raises this alert within so many ms. One too many is better than none. */
  claimAlert(subject: string, ms: number): Promise<boolean> | boolean;
  tellProbe(provider: Provider, result: ProbeResult): void;
  /** From now on, tells others of open circuits of these. */
  watch(providers: readonly Provider[]): void;
}

export interface ProviderPeersOptions {
  readonly providers: () => readonly Provider[];
  readonly probes: () => Pick<ProviderProbes, "learn">;
  readonly clock: Clock;
  readonly log: Log;
}

const subject = { provider: z.string(), key: z.int().min(0) };
const probeNews = z.object({
  ...subject,
  at: z.number(),
  ok: z.boolean(),
  reason: z.string().nullable(),
  balance: z
    .object({
      available: z.boolean(),
      amounts: z.array(z.object({ currency: z.string(), total: z.string() })),
    })
    .nullable(),
});
const circuitNews = z.object({ ...subject, model: z.string().max(300).nullable(), until: z.number() });

/** Models of an account whose open circuits are announced at a time: a limit, since clients may choose their names. */
const modelSlots = 16;
/** Longest time, in ms, for which a circuit is believed to be open elsewhere: clocks may differ. */
const longestMs = 600_000;

/** Until join() is called this process is alone. */
export function createProviderPeers({ providers, probes, clock, log }: ProviderPeersOptions): ProviderPeers {
  let peers: Peers | undefined;

  function tell(topic: PeerTopic, name: string, news: object): void {
    peers?.tell(topic, name, JSON.stringify(news)).catch((error: unknown) => {
      log.debug({ err: error, topic, name }, "the state of a provider could not be sent to the other processes");
    });
  }

  /** The provider and the content of what another process says, which may be of another version. */
  function heard<News extends { readonly provider: string; readonly key: number }>(
    schema: z.ZodType<News>,
    value: string,
    act: (provider: Provider, news: News) => void,
  ): void {
    const { success, data } = schema.safeParse(parsed(value));
    if (!success) return;
    const provider = providers().find(({ name, keyIndex }) => name === data.provider && keyIndex === data.key);
    if (provider !== undefined) act(provider, data);
  }

  return {
    join(joined) {
      peers = joined;
      joined.listen("probe", (value) => {
        heard(probeNews, value, (provider, { at, ok, reason, balance }) => {
          probes().learn(provider, { at, ok, reason, balance });
        });
      });
      joined.listen("circuit", (value) => {
        heard(circuitNews, value, (provider, { model, until }) => {
          const leftMs = until - clock.now();
          if (leftMs > 0 && leftMs <= longestMs) provider.health.suspect(model, clock.monotonic());
        });
      });
    },
    mayProbe: () => peers?.leads() ?? true,
    claimAlert: (name, ms) => peers?.claim(`alert/${name}`, ms).catch(() => true) ?? true,
    tellProbe({ name: provider, keyIndex: key }, result) {
      tell("probe", `${provider}/${key}`, { provider, key, ...result });
    },
    watch(all) {
      for (const { name: provider, keyIndex: key, health } of all) {
        health.onOpen = (model, openMs) => {
          tell("circuit", `${provider}/${key}/${slotOf(model)}`, { provider, key, model, until: clock.now() + openMs });
        };
      }
    },
  };
}

function parsed(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}

function slotOf(model: string | null): string {
  if (model === null) return "";
  return String((createHash("sha256").update(model).digest()[0] ?? 0) % modelSlots);
}
