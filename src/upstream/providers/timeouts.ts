import type { ProviderConfig, TimeoutsConfig } from "../../config/schema.ts";
import type { UpstreamTimeouts } from "./provider.ts";

/** The config's times in ms; a provider's own come before the shared ones. */
export function upstreamTimeouts(shared: TimeoutsConfig, own: ProviderConfig["timeouts"] = {}): UpstreamTimeouts {
  const ms = (key: keyof TimeoutsConfig): number => (own[key] ?? shared[key]) * 1000;
  return {
    connect: ms("connect_seconds"),
    firstByte: ms("first_byte_seconds"),
    firstEvent: ms("first_event_seconds"),
    idle: ms("idle_seconds"),
    total: ms("total_seconds"),
    stalledReader: ms("stalled_reader_seconds"),
    heartbeat: ms("heartbeat_seconds"),
  };
}
