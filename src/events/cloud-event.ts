import type { Envelope } from "./envelope.ts";

/** Where the schemas of payloads are: docs/events.schema.json in the proxy's repository. */
const schemaFile = "docs/events.schema.json";

/**
 * The attributes of an event by CloudEvents 1.0, and the proxy's own as its extensions. What the event doesn't have is
 * absent, for attributes may not be empty. The event's data is `envelope.data`.
 */
export function cloudEventAttributes(envelope: Envelope): Readonly<Record<string, string>> {
  const { id, time, type, version, node } = envelope;
  const optional = {
    subject: envelope.user,
    requestid: envelope.request_id,
    traceid: envelope.trace_id,
    user: envelope.user,
    group: envelope.group,
    keyid: envelope.key_id,
    address: envelope.address,
  };
  const attributes: Record<string, string> = {
    specversion: "1.0",
    id,
    source: `/deepseek-proxy/${encodeURIComponent(node).replaceAll("%3A", ":")}`,
    type: `deepseek-proxy.${type}`,
    time,
    datacontenttype: "application/json",
    dataschema: `${schemaFile}#/$defs/${type}`,
    dataversion: String(version),
    node,
  };
  for (const [name, value] of Object.entries(optional)) if (value !== null) attributes[name] = value;
  return attributes;
}
