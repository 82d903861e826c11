import { AppError } from "../errors.ts";
import { createGlobMap, globMatcher } from "../lib/globs.ts";
import type { KnownModels } from "./model-list.ts";
import { type ApiName, apis } from "./apis.ts";
import type { Provider } from "./provider.ts";

/** The providers that serve a model. */
export interface Route {
  /** The name in the client's request. */
  readonly model: string;
  /** The name after resolving aliases. */
  readonly upstreamModel: string;
  /** In the order in which they are tried; never empty. */
  readonly candidates: readonly Provider[];
}

export interface Router {
  /**
   * Throws AppError model_not_found (404) if no provider serves the model, if none that does has the API, or if the
   * name is a misspelling of a known one.
   */
  resolve(model: string, api: ApiName): Route;
  /** The name of a model after resolving aliases. */
  upstreamName(model: string): string;
  /** The known name that a misspelled one stands for; undefined if the name is known or resembles none. */
  nearest(model: string): string | undefined;
}

export interface RouterOptions {
  readonly providers: readonly Provider[];
  /** Names and globs that clients send -> names that providers know. */
  readonly aliases: Readonly<Record<string, string>>;
  readonly knownModels: KnownModels;
  /** A number in [0, 1), to spread requests by weight. */
  readonly random: () => number;
}

/** Most routes cached for each API: clients choose the names. */
const rememberedModels = 1000;

/** Finds the providers of a model: by priority, then by weight at random. */
export function createRouter({ providers, aliases, knownModels, random }: RouterOptions): Router {
  // A name that a provider lists is never replaced by a glob among the aliases.
  const listed = providers.flatMap(({ models }) => models).filter((name) => !name.includes("*"));
  const targetOf = createGlobMap({ ...Object.fromEntries(listed.map((name) => [name, name])), ...aliases });
  const matchers = providers.map((provider) => ({ provider, patterns: provider.models.map(globMatcher) }));
  const routes = new Map<ApiName, Map<string, Route>>();

  function find(model: string, api: ApiName): Route {
    const upstreamModel = targetOf(model) ?? model;
    const serving = matchers
      .filter(({ patterns }) => patterns.some((matches) => matches(upstreamModel)))
      .map(({ provider }) => provider)
      .sort((a, b) => a.priority - b.priority);
    const candidates = serving.filter((provider) => provider.offers(api));
    if (candidates.length > 0) return { model, upstreamModel, candidates };
    const message =
      serving.length > 0
        ? `No provider of the model ${JSON.stringify(model)} offers ${apis[api].title}.`
        : `No provider serves the model ${JSON.stringify(model)}. GET /v1/models lists those that are served.`;
    throw new AppError("model_not_found", { param: "model", message });
  }

  return {
    upstreamName: (model) => targetOf(model) ?? model,
    nearest: (model) => knownModels.nearest(model),
    resolve(model, api) {
      const meant = knownModels.nearest(model);
      if (meant !== undefined) throw misspelled(model, meant);
      let known = routes.get(api);
      if (known === undefined) routes.set(api, (known = new Map<string, Route>()));
      let route = known.get(model);
      if (route === undefined) {
        route = find(model, api);
        if (known.size >= rememberedModels) known.clear();
        known.set(model, route);
      }
      return route.candidates.length === 1 ? route : { ...route, candidates: shuffle(route.candidates, random) };
    },
  };
}

/** The 404 for a name that differs from a known one only in case or white space. */
export function misspelled(model: string, meant: string): AppError {
  const [name, known] = [JSON.stringify(model), JSON.stringify(meant)];
  const message = `There is no model ${name}. Did you mean ${known}? Case and white space count in names.`;
  return new AppError("model_not_found", { param: "model", message, details: { nearest: meant } });
}

/** Within one priority the heavier providers come first more often (a weighted draw without replacement). */
function shuffle(candidates: readonly Provider[], random: () => number): readonly Provider[] {
  return candidates
    .map((provider) => ({ provider, key: random() ** (1 / provider.weight) }))
    .sort((a, b) => a.provider.priority - b.provider.priority || b.key - a.key)
    .map(({ provider }) => provider);
}
