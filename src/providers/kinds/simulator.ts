import type { ProviderKind } from "../provider-kind.ts";
import { deepseek } from "./deepseek.ts";
import { openai } from "./openai.ts";

/** The built-in simulator: like DeepSeek, plus embeddings, so that a demo can show everything. */
export const simulator: ProviderKind = {
  ...deepseek,
  name: "simulator",
  defaultKeyEnv: null,
  pathOf: (api, base, model) => (api === "embeddings" ? openai : deepseek).pathOf(api, base, model),
};
