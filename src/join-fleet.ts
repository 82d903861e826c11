import type { Config } from "./config/schema.ts";
import type { Reloader } from "./config/reload.ts";
import type { Board } from "./fleet/board.ts";
import { type Fleet, type FleetOptions, openFleet } from "./fleet/fleet.ts";
import type { Closer } from "./lib/close-all.ts";
import type { Log } from "./lib/log.ts";
import type { Redis } from "./lib/redis/redis.ts";
import type { ProviderAdmin } from "./providers/provider-admin.ts";
import type { ProviderServices } from "./providers/provider-services.ts";

interface ShareOptions {
  readonly board: Pick<Board, "set" | "follow">;
  readonly log: Log;
}

export interface JoinOptions extends Pick<FleetOptions, "facts" | "clock" | "log"> {
  /** Undefined: this process is alone. */
  readonly redis: Redis | undefined;
  readonly providers: Pick<ProviderServices, "admin" | "join">;
  readonly reloader: Reloader;
  readonly onOpen: (close: Closer) => void;
}

/** What administrators do reaches all processes by these. */
interface Joined {
  readonly fleet: Fleet | undefined;
  readonly providers: ProviderAdmin;
  readonly reloader: Reloader;
}

/** What the periods and limits of all processes must agree in, for their facts. */
export function countsBy(quota: Pick<Config["quota"], "timezone" | "monthly_reset_day" | "currency">): string {
  const { timezone, monthly_reset_day: resetDay, currency } = quota;
  return `quota.timezone ${timezone}, quota.monthly_reset_day ${resetDay}, quota.currency ${currency}`;
}

/** Joins the processes over one Redis. Rejects if that can't be asked. */
export async function joinFleet({ redis, providers, reloader, onOpen, ...options }: JoinOptions): Promise<Joined> {
  if (redis === undefined) return { fleet: undefined, providers: providers.admin, reloader };
  const fleet = await openFleet({ ...options, redis });
  onOpen(() => fleet.close());
  const shared = { board: fleet.board, log: options.log };
  providers.join({
    leads: () => fleet.leads(),
    claim: (name, ms) => fleet.claim(name, ms),
    tell: (topic, name, value) => fleet.board.set(topic, name, value),
    listen(topic, listener) {
      fleet.board.follow(topic, ({ value, isOwn }) => {
        if (!isOwn) listener(value);
      });
    },
  });
  const tellReload = shareReload((by) => reloader.reload(by), shared);
  return {
    fleet,
    providers: shareProviders(providers.admin, shared),
    reloader: {
      ...reloader,
      async reload(by) {
        const result = await reloader.reload(by);
        if (result.ok) tellReload(by);
        return result;
      },
    },
  };
}

/** Drains and restores providers on all processes: also on those that start while one is drained. */
export function shareProviders(own: ProviderAdmin, { board, log }: ShareOptions): ProviderAdmin {
  const change = (act: "drain" | "restore", name: string): boolean => {
    if (!own[act](name)) return false;
    board.set("provider", name, act).catch((error: unknown) => {
      log.error({ err: error, provider: name, act }, "a provider was drained or restored on this process only");
    });
    return true;
  };
  board.follow("provider", ({ name, value, isOwn }) => {
    if (!isOwn && (value === "drain" || value === "restore")) own[value](name);
  });
  return { ...own, drain: (name) => change("drain", name), restore: (name) => change("restore", name) };
}

/**
 * Reloads the config of all processes when an administrator or a signal reloads that of one: each reads its own file.
 *
 * @param reload reads the config of this process again
 * @returns tells the others; call it once this process has reloaded
 */
export function shareReload(
  reload: (by: string) => Promise<unknown>,
  { board, log }: ShareOptions,
): (by: string) => void {
  let isNews = false;
  board.follow("config", ({ value: by, isOwn }) => {
    if (!isNews || isOwn) return;
    reload(by).catch((error: unknown) => {
      log.error({ err: error, by }, "the config could not be reloaded");
    });
  });
  // What was there before is older than this process.
  isNews = true;
  return (by) => {
    board.set("config", "reload", by).catch((error: unknown) => {
      log.error({ err: error, by }, "the config was reloaded on this process only");
    });
  };
}
