import type { ProviderKind } from "../provider.ts";
import { deepseek } from "./deepseek.ts";
import { openai } from "./openai.ts";
import { simulator } from "./simulator.ts";
import { zhipu } from "./zhipu.ts";

/** Every kind of provider, one file each. */
export const providerKinds: Readonly<Record<ProviderKind["kind"], ProviderKind>> = {
  openai,
  deepseek,
  zhipu,
  simulator,
};
