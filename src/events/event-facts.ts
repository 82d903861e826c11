import type { ProxyEvent } from "./types.ts";

/** Clients choose the model name, at any length. */
const maxTextLength = 128;

/**
 * The loggable fields of an event: an allow-list, so a field added to an event stays out of every log until it is named
 * here. Snake case; times in ms, `cost_nano` in nano-units of `currency`.
 */
export function eventFacts(event: ProxyEvent): Readonly<Record<string, unknown>> {
  // A chat's facts are a single literal: spreading a common part into such a large one costs 40 µs.
  switch (event.type) {
    case "chat.finished":
      return {
        event: event.type,
        trace_id: text(event.traceId),
        ip: text(event.ip),
        user: text(event.user),
        key_id: text(event.keyId),
        api: event.api,
        model: text(event.model),
        provider: text(event.provider),
        stream: event.stream,
        outcome: text(event.outcome),
        code: text(event.code),
        status: event.status,
        requests: event.requests,
        input_tokens: event.inputTokens,
        cached_tokens: event.cachedTokens,
        output_tokens: event.outputTokens,
        reasoning_tokens: event.reasoningTokens,
        cost_nano: event.cost,
        currency: text(event.currency),
        estimated: event.estimated,
        first_event_ms: tenths(event.firstEventMs),
        generation_ms: tenths(event.generationMs),
        duration_ms: tenths(event.durationMs),
        retries: event.retries,
      };
    case "login.succeeded":
      return { ...common(event), user: text(event.user) };
    case "login.failed":
      return { ...common(event), user: text(event.user), result: event.result, reason: text(event.reason) };
    case "login.locked":
      return {
        ...common(event),
        user: text(event.user),
        scope: event.scope,
        failures: event.failures,
        escalation: event.escalation,
        wait_ms: event.waitMs,
      };
    case "login.unlocked":
      return { ...common(event), user: text(event.user), by: text(event.by) };
    case "quota.exceeded":
      return { ...common(event), user: text(event.user), metric: text(event.metric), per: text(event.per) };
    case "rate_limit.rejected":
      return { ...common(event), user: text(event.user), rule: text(event.rule) };
    case "session.reuse_detected":
    case "session.ended":
    case "api_key.created":
    case "api_key.revoked":
    case "password.changed":
      return { ...common(event), user: text(event.user), subject: text(event.subject) };
    case "provider.alert":
      return { ...common(event), provider: text(event.provider), key: event.key, kind: event.kind };
    case "admin.changed":
      return {
        ...common(event),
        action: event.action,
        by: text(event.by),
        ...(event.user === null ? {} : { user: text(event.user) }),
        subject: text(event.subject),
        before: event.before,
        after: event.after,
        reason: event.reason,
      };
    case "config.reloaded":
      return {
        event: event.type,
        by: text(event.by),
        changes: event.changes,
        count: event.count,
        restart_needed: event.restartNeeded,
      };
    case "config.rejected":
      return { event: event.type, by: text(event.by), error: event.error };
    case "request.finished":
      return { ...common(event), route: event.route, code: text(event.code), status: event.status };
  }
}

function common({ type, traceId, ip }: ProxyEvent): { event: string; trace_id: string; ip: string } {
  return { event: type, trace_id: text(traceId), ip: text(ip) };
}

function text(value: string): string {
  return value.length > maxTextLength ? value.slice(0, maxTextLength) : value;
}

function tenths(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 10) / 10;
}

/**
 * Creates a function that renders an event's loggable fields as a JSON object. It caches the latest one: the bus passes
 * each event to one sink after the other, and two of them write it.
 */
export function createEventText(): (event: ProxyEvent) => string {
  let last: ProxyEvent | null = null;
  let text = "";
  return (event) => {
    if (event !== last) {
      text = JSON.stringify(eventFacts(event));
      last = event;
    }
    return text;
  };
}
