import type { Clock } from "../../lib/clock.ts";
import { request } from "undici";
import { globMatcher } from "../../lib/globs.ts";
import type { Provider } from "./provider.ts";
import { readText } from "./read-text.ts";

/** A model that clients may ask for. */
interface ListedModel {
  readonly id: string;
  /** The provider that is asked first for it. */
  readonly ownedBy: string;
}

/** Whether a provider answered when it was last asked for its models. */
interface Reachability {
  readonly provider: string;
  readonly ok: boolean;
  /** Why not; a code or a status, nothing secret. */
  readonly reason?: string;
}

export interface ModelList {
  /** What the router can serve, sorted by name. Never rejects: a provider that is down is listed from memory. */
  list(): Promise<readonly ListedModel[]>;
  reachability(): Promise<readonly Reachability[]>;
  /** What the providers listed when they last did, as far as they serve it; another array after each change. */
  served(): readonly string[];
  /** Asks a provider again where its list is old. Never throws. */
  refresh(provider: Provider): void;
}

interface Listing {
  readonly models: readonly string[];
  /** Whether the provider has said so; else they are those that its kind is known to have. */
  readonly reported: boolean;
  readonly reachability: Reachability;
}

/** How long an answer holds, and how long one may take, in ms. */
const freshMs = 60_000;
const timeoutMs = 3_000;
/** A list of models is no longer, in bytes; OpenRouter's has about one MiB. */
const maxBytes = 8 << 20;
/** So many names of a list are read. */
const maxListed = 10_000;

/** Asks providers which models they have, now and then, and keeps those that the config lets through. */
export function createModelList(options: {
  readonly providers: readonly Provider[];
  readonly aliases: Readonly<Record<string, string>>;
  readonly clock: Clock;
}): ModelList {
  const { providers, aliases, clock } = options;
  const cache = new Map<string, { readonly at: number; readonly listing: Promise<Listing> }>();

  const servedBy = new Map(
    providers.map((provider) => [provider.name, servedOf(provider, provider.dialect.knownModels)]),
  );
  let served = [...servedBy.values()].flat();

  function remember(provider: Provider, models: readonly string[]): void {
    const before = servedBy.get(provider.name) ?? [];
    const now = servedOf(provider, models);
    if (now.length === before.length && now.every((name, index) => name === before[index])) return;
    servedBy.set(provider.name, now);
    served = [...servedBy.values()].flat();
  }

  function listingOf(provider: Provider): Promise<Listing> {
    const now = clock.monotonic();
    const cached = cache.get(provider.name);
    if (cached !== undefined && now - cached.at < freshMs) return cached.listing;
    const listing = fetchListing(provider).then((result) => {
      // A failure is not worth remembering for long, but a flood of questions must not become a flood upstream.
      if (!result.reachability.ok) cache.set(provider.name, { at: now - freshMs + timeoutMs, listing });
      if (result.reported) remember(provider, result.models);
      return result;
    });
    cache.set(provider.name, { at: now, listing });
    return listing;
  }

  return {
    async list() {
      const owners = new Map<string, string>();
      const sorted = [...providers].sort((a, b) => a.priority - b.priority);
      for (const provider of sorted) {
        const { models } = await listingOf(provider);
        const plain = provider.models.filter((name) => !name.includes("*"));
        for (const id of [...plain, ...servedOf(provider, models)]) {
          if (!owners.has(id)) owners.set(id, provider.name);
        }
        // A glob is no name that could be asked for.
        for (const [alias, target] of Object.entries(aliases).filter(([name]) => !name.includes("*"))) {
          if (!owners.has(alias) && servedOf(provider, [target]).length > 0) owners.set(alias, provider.name);
        }
      }
      return [...owners].map(([id, ownedBy]) => ({ id, ownedBy })).sort((a, b) => (a.id < b.id ? -1 : 1));
    },
    served: () => served,
    refresh: (provider) => void listingOf(provider),
    async reachability() {
      return Promise.all(providers.map(async (provider) => (await listingOf(provider)).reachability));
    },
  };
}

/** Those of the models that the config lets through to the provider. */
function servedOf(provider: Provider, models: readonly string[]): readonly string[] {
  const matchers = provider.models.map(globMatcher);
  return models.filter((name) => matchers.some((matches) => matches(name)));
}

async function fetchListing(provider: Provider): Promise<Listing> {
  const { name, dialect } = provider;
  try {
    const answer = await request(`${provider.origin}${provider.basePath}/models${provider.query}`, {
      dispatcher: provider.dispatcher,
      headers: { ...provider.headers, accept: "application/json" },
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (answer.statusCode !== 200) {
      await answer.body.dump();
      // An answer is an answer: Zhipu may have no such route. Only a refused key means that nothing will work.
      const ok = answer.statusCode < 500 && answer.statusCode !== 401 && answer.statusCode !== 403;
      const reason = `status ${answer.statusCode}`;
      return {
        models: dialect.knownModels,
        reported: false,
        reachability: { provider: name, ok, ...(ok ? {} : { reason }) },
      };
    }
    return {
      models: readModels(JSON.parse(await readText(answer.body, maxBytes))),
      reported: true,
      reachability: { provider: name, ok: true },
    };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "no answer";
    return { models: dialect.knownModels, reported: false, reachability: { provider: name, ok: false, reason: code } };
  }
}

function readModels(body: unknown): string[] {
  if (typeof body !== "object" || body === null || !("data" in body) || !Array.isArray(body.data)) return [];
  return body.data
    .slice(0, maxListed)
    .flatMap((entry: unknown) =>
      typeof entry === "object" && entry !== null && "id" in entry && typeof entry.id === "string" ? [entry.id] : [],
    );
}
