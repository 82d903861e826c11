/** W3C Trace Context, level 2: which trace a request belongs to, and the span that caused it. */
export interface TraceContext {
  /** 32 hex digits, lower case. */
  readonly traceId: string;
  /** 16 hex digits, lower case. */
  readonly spanId: string;
  /** Bit 0: the caller records this trace. */
  readonly flags: number;
  /** The tracestate header; "" if there is none, or none that may be passed on. */
  readonly state: string;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

const parentPattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const noTrace = "0".repeat(32);
const noSpan = "0".repeat(16);
/** A longer parent is no valid one, and a longer state need not be passed on. */
const maxLength = 512;

/**
 * The context of an incoming request; null if it has none, or an invalid one, which the specification says to ignore.
 * @param headers with names in lower case, as Node gives them
 */
export function parseTraceContext({ traceparent, tracestate }: Headers): TraceContext | null {
  if (typeof traceparent !== "string" || traceparent.length > maxLength) return null;
  const [, version, traceId = noTrace, spanId = noSpan, flags = "00", rest] = parentPattern.exec(traceparent) ?? [];
  if (version === undefined || version === "ff" || (version === "00" && rest !== undefined)) return null;
  if (traceId === noTrace || spanId === noSpan) return null;
  return { traceId, spanId, flags: parseInt(flags, 16), state: stateOf(tracestate) };
}

/** The headers that pass a context on. */
export function traceHeaders({ traceId, spanId, flags, state }: TraceContext): Readonly<Record<string, string>> {
  // Of a version that is not known yet only the flags of this one are passed on: sampled, and random id.
  const traceparent = `00-${traceId}-${spanId}-${(flags & 3).toString(16).padStart(2, "0")}`;
  return state === "" ? { traceparent } : { traceparent, tracestate: state };
}

/** Whole, or not at all: a part of it would be wrong. */
function stateOf(value: string | string[] | undefined): string {
  const state = (typeof value === "string" ? value : (value ?? []).join(",")).trim();
  return state.length <= maxLength && /^[\x20-\x7e]*$/.test(state) ? state : "";
}
