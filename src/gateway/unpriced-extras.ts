/**
 * Request fields that make a provider bill more than tokens at their standard prices: another service tier, tools that
 * it runs itself, other media, or another model than the one named. Each has a test for the values that cost nothing
 * extra.
 */
const extras: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  ["service_tier", isStandardTier],
  ["speed", (value) => value === "standard"],
  ["priority", (value) => value === 0],
  ["inference_geo", never],
  // The names of web search at OpenAI, xAI, Qwen and gateways.
  ["web_search_options", never],
  ["web_search", isOff],
  ["search_parameters", (value) => isRecord(value) && value.mode === "off"],
  ["enable_search", isOff],
  ["plugins", isEmpty],
  ["tools", areClientTools],
  // The Responses API takes tools among the items of its input as well.
  ["input", (value) => !Array.isArray(value) || value.every((item) => !isRecord(item) || isFreeItem(item))],
  ["modalities", (value) => Array.isArray(value) && value.every((one) => one === "text")],
  ["audio", never],
  // Gateways fall back to these if the named and priced model fails.
  ["models", isEmpty],
  ["fallbacks", isEmpty],
]);

/** Names of the tier that is billed at standard prices; `auto` is the default of providers. */
const standardTiers: ReadonlySet<unknown> = new Set(["auto", "default", "standard", "standard_only", "on_demand"]);

/** The types of Anthropic's tools that the client runs; each ends in a date. */
const clientTool = /^(?:bash|text_editor|computer|memory)_\d{8}$/;

/** The names of these fields. */
export const extraParams: readonly string[] = [...extras.keys()];

/** The first field of a request that may cost more than its tokens; null if there is none. */
export function unpricedExtra(body: Readonly<Record<string, unknown>>): string | null {
  for (const [param, isStandard] of extras) {
    const value = body[param];
    if (value !== undefined && value !== null && !isStandard(value)) return param;
  }
  return null;
}

function areClientTools(value: unknown): boolean {
  return Array.isArray(value) && value.every(runsAtClient);
}

function isFreeItem({ tools = null }: Readonly<Record<string, unknown>>): boolean {
  return tools === null || areClientTools(tools);
}

/** Whether the client runs the tool, so that the model only gets its description. Any unknown tool may be billed. */
function runsAtClient(tool: unknown): boolean {
  if (!isRecord(tool) || Object.keys(tool).some((key) => key !== "type" && key.toLowerCase() === "type")) return false;
  const { type = null, name } = tool;
  if (type === "function") return !isBuiltIn(tool.function ?? tool);
  // The Responses API's group of functions.
  if (type === "namespace") return areClientTools(tool.tools);
  // Anthropic's format allows tools without a type.
  if (type === null || type === "custom") return typeof name === "string" || isRecord(tool[type ?? "function"]);
  return typeof type === "string" && clientTool.test(type);
}

/** Moonshot runs functions itself whose name begins with `$`. */
function isBuiltIn(described: unknown): boolean {
  return isRecord(described) && typeof described.name === "string" && described.name.startsWith("$");
}

function isStandardTier(value: unknown): boolean {
  return standardTiers.has(value);
}

function isOff(value: unknown): boolean {
  return value === false;
}

function isEmpty(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0;
}

function never(): boolean {
  return false;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
