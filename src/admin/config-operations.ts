import type { ConfigChange } from "../config/difference.ts";
import { shownChanges } from "../config/difference.ts";
import { maskConfig } from "../config/masked.ts";
import type { Reloader, ReloadResult, ReloadStatus } from "../config/reload.ts";
import { AppError } from "../errors.ts";
import type { Actor, Audit } from "./audit.ts";

export interface ConfigOperations {
  /** The config in force, with secrets masked, and the state of the file. */
  current(): { readonly config: Readonly<Record<string, unknown>>; readonly status: ReloadStatus };
  /** Reads the config file again now. Throws AppError `config_invalid`; then nothing has changed. */
  reload(actor: Actor): Promise<ReloadResult>;
}

/** Showing and reloading the config. A reload that changes nothing is not audited. */
export function createConfigOperations(options: {
  /** The config in force. */
  readonly config: () => object;
  readonly reloader: Reloader;
  readonly audit: Audit;
}): ConfigOperations {
  const { config, reloader, audit } = options;
  return {
    current: () => ({ config: maskConfig(config()), status: reloader.status() }),
    async reload(actor) {
      const result = await reloader.reload(actor.by);
      const { ok, changes, error = "" } = result;
      if (!ok) throw new AppError("config_invalid", { message: error, details: { problems: error.split("\n") } });
      const shown = shownChanges(changes);
      if (shown.length > 0) {
        const [before, after] = [valuesOf(shown, "before"), valuesOf(shown, "after")];
        await audit.record(actor, { action: "config.reloaded", user: null, before, after });
      }
      return { ...result, changes: shown };
    },
  };
}

/** The values by path. */
function valuesOf(changes: readonly ConfigChange[], side: "before" | "after"): Readonly<Record<string, unknown>> {
  return Object.fromEntries(changes.map((change) => [change.path, change[side]]));
}
