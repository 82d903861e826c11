import { apis } from "../apis.ts";
import type { ProviderKind } from "../provider-kind.ts";

/** Any server that speaks OpenAI's formats at OpenAI's paths. */
export const openai: ProviderKind = {
  name: "openai",
  defaultBaseUrl: "https://api.openai.com/v1",
  defaultKeyEnv: "OPENAI_API_KEY",
  // vLLM, Ollama and llama.cpp often have none.
  mayBeKeyless: true,
  knownModels: [],
  features: {
    streamOptions: true,
    developerRole: true,
    maxCompletionTokens: true,
    keepsResponses: true,
    namesWithoutThinking: [],
  },
  pathOf(api, base) {
    const { path } = apis[api];
    return path === null ? null : base + path;
  },
  modelsPath: (base) => `${base}/models`,
  authorization: (secret) => ({ authorization: `Bearer ${secret}` }),
  headersOf: () => ({}),
  classify: () => null,
  probe: { pathOf: (base) => `${base}/models`, readBalance: () => null },
};
