import type { ApiName } from "../apis.ts";
import type { Balance, ProviderKind } from "../provider-kind.ts";
import { anthropicHeaders } from "./anthropic-headers.ts";
import { openai } from "./openai.ts";

/** The APIs that are not where OpenAI has them; null: it has none. */
const ownPaths: Readonly<Partial<Record<ApiName, string | null>>> = {
  beta_chat: "/beta/chat/completions",
  completions: "/beta/completions",
  messages: "/anthropic/v1/messages",
  embeddings: null,
};

/** DeepSeek: OpenAI's formats; a 401 may be plain text, usage comes with the finish chunk. */
export const deepseek: ProviderKind = {
  ...openai,
  name: "deepseek",
  defaultBaseUrl: "https://api.deepseek.com",
  defaultKeyEnv: "DEEPSEEK_API_KEY",
  mayBeKeyless: false,
  knownModels: ["deepseek-flash", "deepseek-v4-pro"],
  features: {
    streamOptions: true,
    developerRole: false,
    maxCompletionTokens: false,
    keepsResponses: false,
    namesWithoutThinking: ["deepseek-chat"],
  },
  pathOf(api, base, model) {
    // Only chats work below /v1 and /beta as well.
    if (api === "chat") return openai.pathOf(api, base, model);
    const own = ownPaths[api];
    if (own === undefined) return openai.pathOf(api, rootOf(base), model);
    return own === null ? null : rootOf(base) + own;
  },
  headersOf: anthropicHeaders,
  classify(status, { message }) {
    // Both come as 400 with the code of any other bad request: only the message distinguishes them.
    if (status !== 400 && status !== 200) return null;
    if (message.startsWith("Model Not Exist")) return "model_unknown";
    return message.startsWith("Content Exists Risk") ? "content_refused" : null;
  },
  // The balance is next to the versions of the API, not below them.
  probe: { pathOf: (base) => `${rootOf(base)}/user/balance`, readBalance },
};

function rootOf(base: string): string {
  return base.replace(/\/(v1|beta)$/, "");
}

/** Longest text that is kept, in characters. */
const maxText = 32;

function readBalance(body: unknown): Balance | null {
  if (!isRecord(body) || typeof body.is_available !== "boolean") return null;
  const infos: readonly unknown[] = Array.isArray(body.balance_infos) ? body.balance_infos : [];
  return {
    available: body.is_available,
    amounts: infos.filter(isRecord).map(({ currency, total_balance: total }) => ({
      currency: text(currency),
      total: text(total),
    })),
  };
}

function text(value: unknown): string {
  return typeof value === "string" ? value.slice(0, maxText) : "";
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
