import { get } from "./api.ts";
import { useLoad } from "./load.ts";

interface ModelList {
  readonly data: readonly { readonly id: string }[];
}

/** Suggested before the others: the cheapest one, and no old name. */
const suggested = "deepseek-flash";

/** The models that the caller may use, first the one to suggest; empty until they are known. */
export function useModels(): readonly string[] {
  const { data } = useLoad("models", (signal) => get<ModelList>("/v1/models", {}, signal));
  const ids = data?.data.map(({ id }) => id) ?? [];
  return ids.includes(suggested) ? [suggested, ...ids.filter((id) => id !== suggested)] : ids;
}
