import type { ProviderConfig } from "../../config/schema.ts";
import type { ProviderKind } from "../provider-kind.ts";
import { deepseek } from "./deepseek.ts";
import { openai } from "./openai.ts";
import { simulator } from "./simulator.ts";
import { zhipu } from "./zhipu.ts";

/** Every kind of provider, one file each. The names are those of config.toml. */
export const providerKinds: Readonly<Record<ProviderConfig["kind"], ProviderKind>> = {
  openai,
  deepseek,
  zhipu,
  simulator,
};
