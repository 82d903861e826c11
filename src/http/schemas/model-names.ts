import { AppError } from "../../errors.ts";
import type { KnownModels } from "../../providers/model-list.ts";

/**
 * Refuses misspelled models among those that a key, user or group may use: names are compared exactly, so such a name
 * would allow nothing, and its owner would only see that every request is refused.
 *
 * @param models names and globs; null or undefined: all models
 * @param param the list's name in the request
 * @param before those that it may use already: they stay, whatever has become of them at the providers
 * @throws AppError `invalid_request`, which names the entry and the model that was probably meant
 */
export function checkModelNames(
  models: readonly string[] | null | undefined,
  knownModels: KnownModels,
  param = "models",
  before: readonly string[] = [],
): void {
  models?.forEach((model, index) => {
    const meant = knownModels.misspelled(model);
    if (meant === undefined || before.includes(model)) return;
    const message = `There is no model ${JSON.stringify(model)}. Did you mean ${JSON.stringify(meant)}? Case and white space count in names.`;
    throw new AppError("invalid_request", { param: `${param}.${index}`, message, details: { nearest: meant } });
  });
}
