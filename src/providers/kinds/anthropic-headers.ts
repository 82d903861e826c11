import type { ApiName } from "../apis.ts";

/** The headers of Anthropic's API, for kinds that have it beside their own. */
export function anthropicHeaders(api: ApiName, secret: string): Readonly<Record<string, string>> {
  if (api !== "messages") return {};
  // Anthropic's own header for the key; some compatible servers accept only one of the two.
  return { "anthropic-version": "2023-06-01", ...(secret === "" ? {} : { "x-api-key": secret }) };
}
