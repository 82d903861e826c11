import { replaceMembers, type JsonObject } from "../../lib/json-object.ts";

const includeUsage = JSON.stringify({ include_usage: true });

/**
 * The body for a provider that knows the model under this name. The provider is always asked to stream, and to report
 * usage: a charge needs it, whatever the client wants.
 */
export function streamingBody(
  body: JsonObject,
  upstreamModel: string,
  streamOptions: Readonly<Record<string, unknown>> | null,
): Buffer {
  const edits: Record<string, string> = {};
  if (body.value.stream !== true) edits.stream = "true";
  if (streamOptions?.include_usage !== true) {
    edits.stream_options =
      streamOptions === null ? includeUsage : JSON.stringify({ ...streamOptions, include_usage: true });
  }
  if (body.value.model !== upstreamModel) edits.model = JSON.stringify(upstreamModel);
  return replaceMembers(body, edits);
}
