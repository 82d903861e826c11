import { get } from "./api.ts";
import { useLoad } from "./load.ts";

interface ConfigPart {
  readonly config: {
    readonly quota?: { readonly tiers?: Readonly<Record<string, unknown>>; readonly currency?: string };
  };
}

/** The tiers of the config in force, and the currency that amounts without one are in. */
export function useTiers(): { readonly tiers: readonly string[]; readonly currency: string } {
  const quota = useLoad("tiers", (signal) => get<ConfigPart>("/admin/config", {}, signal)).data?.config.quota;
  return { tiers: Object.keys(quota?.tiers ?? {}), currency: quota?.currency ?? "" };
}
