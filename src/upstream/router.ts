import { AppError } from "../errors.ts";
import { globMatcher } from "../lib/globs.ts";
import type { Provider } from "./provider.ts";

/** Who can answer for a model. */
export interface Route {
  /** The name that the client asked for. */
  readonly model: string;
  /** The name that the providers know. */
  readonly upstreamModel: string;
  /** In the order in which they are to be asked; never empty. */
  readonly candidates: readonly Provider[];
}

export interface Router {
  /** Throws AppError model_not_found (404). */
  resolve(model: string): Route;
}

export interface RouterOptions {
  readonly providers: readonly Provider[];
  /** Names that clients send -> names that providers know. */
  readonly aliases: Readonly<Record<string, string>>;
  /** A number in [0, 1), to spread requests by weight. */
  readonly random: () => number;
}

/** Clients choose the names, so what is remembered of them is bounded. */
const rememberedModels = 1000;

/** Finds the providers of a model: by priority, then by weight at random. */
export function createRouter({ providers, aliases, random }: RouterOptions): Router {
  const aliasMap = new Map(Object.entries(aliases));
  const matchers = providers.map((provider) => ({ provider, patterns: provider.models.map(globMatcher) }));
  const routes = new Map<string, Route>();

  function find(model: string): Route {
    const upstreamModel = aliasMap.get(model) ?? model;
    const candidates = matchers
      .filter(({ patterns }) => patterns.some((matches) => matches(upstreamModel)))
      .map(({ provider }) => provider)
      .sort((a, b) => a.priority - b.priority);
    if (candidates.length === 0) {
      throw new AppError("model_not_found", {
        param: "model",
        message: `No provider serves the model "${model.slice(0, 100)}". GET /v1/models lists those that are served.`,
      });
    }
    return { model, upstreamModel, candidates };
  }

  return {
    resolve(model) {
      let route = routes.get(model);
      if (route === undefined) {
        route = find(model);
        if (routes.size >= rememberedModels) routes.clear();
        routes.set(model, route);
      }
      return route.candidates.length === 1 ? route : { ...route, candidates: shuffle(route.candidates, random) };
    },
  };
}

/** Within one priority the heavier providers come first more often (a weighted draw without replacement). */
function shuffle(candidates: readonly Provider[], random: () => number): readonly Provider[] {
  return candidates
    .map((provider) => ({ provider, key: random() ** (1 / provider.weight) }))
    .sort((a, b) => a.provider.priority - b.provider.priority || b.key - a.key)
    .map(({ provider }) => provider);
}
