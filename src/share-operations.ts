import type { Board } from "./fleet/board.ts";
import type { Log } from "./lib/log.ts";
import type { ProviderAdmin } from "./providers/provider-admin.ts";

interface ShareOptions {
  readonly board: Pick<Board, "set" | "follow">;
  readonly log: Log;
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
  return { list: () => own.list(), drain: (name) => change("drain", name), restore: (name) => change("restore", name) };
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
