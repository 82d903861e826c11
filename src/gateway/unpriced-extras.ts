/**
 * Request fields by which a provider bills something else than tokens at their standard prices: another tier of
 * service, calls of tools that it runs itself, other media, or another model than the one that is named. Each with a
 * test of the values that cost nothing extra.
 */
const extras: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  ["service_tier", isStandardTier],
  ["speed", (value) => value === "standard"],
  ["priority", (value) => value === 0],
  ["inference_geo", never],
  // Searches, as OpenAI, xAI, Qwen and gateways call them.
  ["web_search_options", never],
  ["web_search", isOff],
  ["search_parameters", (value) => isRecord(value) && value.mode === "off"],
  ["enable_search", isOff],
  ["plugins", isEmpty],
  ["tools", (value) => Array.isArray(value) && value.every(runsAtClient)],
  ["modalities", (value) => Array.isArray(value) && value.every((one) => one === "text")],
  ["audio", never],
  // Gateways answer from these where the model that is named and priced can't.
  ["models", isEmpty],
  ["fallbacks", isEmpty],
]);

/** What providers call the tier that is billed at standard prices; `auto` is what they do where none is named. */
const standardTiers: ReadonlySet<unknown> = new Set(["auto", "default", "standard", "standard_only", "on_demand"]);

/** What Anthropic calls those of its tools that the client runs, before a date. */
const clientTool = /^(?:bash|text_editor|computer|memory)_\d{8}$/;

/** Their names. */
export const extraParams: readonly string[] = [...extras.keys()];

/** The first field of a request that may cost more than its tokens do; null where there is none. */
export function unpricedExtra(body: Readonly<Record<string, unknown>>): string | null {
  for (const [param, isStandard] of extras) {
    const value = body[param];
    if (value !== undefined && value !== null && !isStandard(value)) return param;
  }
  return null;
}

/** Whether a tool is only described to the model, for the client to run. What is not known to be so may be billed. */
function runsAtClient(tool: unknown): boolean {
  if (!isRecord(tool) || Object.keys(tool).some((key) => key !== "type" && key.toLowerCase() === "type")) return false;
  const { type = null, name } = tool;
  if (type === "function") return !isBuiltIn(tool.function);
  // Anthropic's shape need not name a type.
  if (type === null || type === "custom") return typeof name === "string" || isRecord(tool[type ?? "function"]);
  return typeof type === "string" && clientTool.test(type);
}

/** Moonshot takes functions for its own whose name begins so. */
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
