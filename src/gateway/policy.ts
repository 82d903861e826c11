import type { Allowances } from "../quota/allowances.ts";
import type { PermitRules } from "../limits/permit-rules.ts";
import type { ReaderTimes } from "../providers/provider.ts";
import type { RetryRule } from "../providers/failover.ts";
import type { Admission } from "./admission.ts";
import type { DrainBounds } from "./drain.ts";
import type { PricingPolicy } from "./request-cost.ts";

/**
 * The rules that requests are handled by: the part of the live configuration that the gateway reads. Immutable. A
 * request keeps the policy it started under until it ends, whatever is reloaded meanwhile.
 */
export interface GatewayPolicy {
  readonly admission: Admission;
  readonly retry: RetryRule;
  readonly limitsOf: Allowances["limitsOf"];
  readonly pricingPolicy: PricingPolicy;
  readonly permitRules: PermitRules;
  /** The proxy's own timeouts towards clients; a provider may have others. */
  readonly readerTimes: ReaderTimes;
  /** chat.stream_default. */
  readonly streamDefault: boolean;
  /** chat.json_heartbeat. */
  readonly jsonHeartbeat: boolean;
  /** Most bytes of events that are collected into one JSON. */
  readonly collectLimitBytes: number;
  readonly warnPercent: number;
  /** Currency of charges of 0. */
  readonly currency: string;
  /** What happens to a response after its client has disconnected; auto: drain if the user has token or cost limits. */
  readonly abortPolicy: "auto" | "drain" | "cancel";
  readonly drainBounds: DrainBounds;
  /** Disconnects that are free of charge, for each user and hour. */
  readonly freeDisconnects: number;
}
