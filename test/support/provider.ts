import type { Pass } from "../../src/providers/provider-health.ts";
import { createProvider, type ProviderOptions } from "../../src/providers/create-provider.ts";
import type { Provider } from "../../src/providers/provider.ts";

/** A provider of DeepSeek's kind whose times are long and whose breaker opens at the second failure. */
export function testProvider(name: string, changes: Partial<ProviderOptions> = {}): Provider {
  return createProvider({
    name,
    keyIndex: 0,
    kind: "deepseek",
    baseUrl: "http://127.0.0.1:9",
    apiKey: "sk-test",
    models: ["*"],
    modelMap: {},
    priority: 0,
    weight: 1,
    timeouts: {
      connect: 5000,
      firstByte: 5000,
      firstEvent: 5000,
      idle: 5000,
      total: 60_000,
      stalledReader: 5000,
      heartbeat: 5000,
    },
    breaker: { failures: 2, windowMs: 10_000, openMs: 1000 },
    ...changes,
  });
}

/** The pass of a request to a model while all circuits are closed. */
export function passFor(model: string, user = "alice"): Pass {
  return { model, user, accountPermit: 0, modelPermit: 0 };
}
