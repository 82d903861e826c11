import type { Config } from "./schema.ts";

/**
 * The keys that are read once, at the start: sockets, files, and what stored records depend on. A change of any of them
 * needs a restart; all other keys are live. The one table for the types, the reload and docs/configuration.md.
 *
 * @public read by scripts/write-docs.mjs
 */
export const bootKeys = {
  server: ["host", "port", "backlog", "body_limit_bytes", "request_seconds"],
  storage: [
    "users_dir",
    "logs_dir",
    "durability",
    "sync_interval_ms",
    "snapshot_interval_seconds",
    "segment_bytes",
    "journal_archive_days",
  ],
  state: [
    "backend",
    "key_prefix",
    "timeout_ms",
    "lease_seconds",
    "restore_wait_ms",
    "min_replicas",
    "when_away",
    "allowance_share",
    "allowance_seconds",
  ],
  auth: ["issuer", "audience", "max_hashes", "max_waiting_logins"],
  quota: ["timezone", "monthly_reset_day", "currency"],
  usage: ["keep_days"],
  logs: ["flush_ms", "max_queued", "max_file_bytes"],
  security: ["login_max_tracked"],
  telemetry: ["otlp_endpoint", "otlp_headers_env", "sample_ratio", "capture_content", "max_queued_spans"],
  events: ["ring_size", "spool", "redis", "kafka"],
} as const satisfies { readonly [Section in keyof Config]?: readonly (keyof Config[Section])[] };

type BootKeys = typeof bootKeys;

/** The part of the config that stays as it is until a restart. */
export type BootConfig = {
  readonly [Section in keyof BootKeys]: Pick<
    Config[Section],
    Extract<BootKeys[Section][number], keyof Config[Section]>
  >;
};

/** Whether a change at this path, such as `server.port`, needs a restart. */
export function needsRestart(path: string): boolean {
  const [section = "", key = ""] = path.split(".");
  const keys: Readonly<Record<string, readonly string[] | undefined>> = bootKeys;
  return keys[section]?.includes(key) === true;
}

/** The config that a running process can put in force: `next`, with the values of the boot keys that it started with. */
export function withBootOf(next: Config, running: Config): Config {
  const merged: Record<string, unknown> = { ...next };
  for (const section of Object.keys(bootKeys) as (keyof BootKeys)[]) {
    const kept = bootKeys[section].map((key) => [key, Reflect.get(running[section], key)] as const);
    merged[section] = { ...next[section], ...Object.fromEntries(kept) };
  }
  return merged as Config;
}
