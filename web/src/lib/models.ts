import { get } from "./api.ts";
import { useLoad } from "./load.ts";

interface ModelList {
  readonly data: readonly { readonly id: string }[];
}

/** The models that the caller may use; empty until they are known. */
export function useModels(): readonly string[] {
  return useLoad("models", (signal) => get<ModelList>("/v1/models", {}, signal)).data?.data.map(({ id }) => id) ?? [];
}
