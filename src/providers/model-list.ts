import type { Clock } from "../lib/clock.ts";
import { request } from "undici";
import { globMatcher } from "../lib/globs.ts";
import type { Provider } from "./provider.ts";
import type { BreakerState } from "./breaker.ts";
import { timeoutReason, readText, failureReason } from "./read-text.ts";

/** A model that clients may ask for. */
interface ListedModel {
  readonly id: string;
  /** The provider that is asked first for it. */
  readonly ownedBy: string;
}

/** Whether a provider can be reached: it tells its models, or chats show that it works. */
interface Reachability {
  readonly provider: string;
  readonly ok: boolean;
  /** Why it doesn't tell its models; words, a code or a status, nothing secret. */
  readonly reason?: string;
  /** Circuits that are not closed, where there are any. */
  readonly circuits?: readonly OpenCircuit[];
}

interface OpenCircuit {
  /** Place of the key among the provider's. */
  readonly key: number;
  /** `*`: all models. */
  readonly model: string;
  readonly state: BreakerState;
}

export interface ModelList {
  /** What the router can serve, sorted by name. Never rejects: a provider that is down is listed from memory. */
  list(): Promise<readonly ListedModel[]>;
  /** One entry a provider, within half a second: while a provider takes longer, what it last told counts. */
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
  /** Why the provider counts as not reached; null where it answered. */
  readonly failure: string | null;
}

/** How long an answer holds, and how long one may take, in ms. */
const freshMs = 60_000;
const timeoutMs = 3_000;
/** How long `reachability` waits for an answer, in ms: it is asked by /healthz, which answers within a second. */
const reachableMs = 500;
/** Circuits that are shown of one provider. */
const maxCircuits = 100;
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
  /** What providers told last, and monotonic ms at which they were last asked and did tell. */
  const lastResults = new Map<string, { readonly failure: string | null; readonly workedAt: number }>();

  const servedBy = new Map(providers.map((provider) => [provider.name, servedOf(provider, provider.kind.knownModels)]));
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
      // A failure is not worth remembering for long, but a flood of requests must not become a flood upstream.
      if (result.failure !== null) cache.set(provider.name, { at: now - freshMs + timeoutMs, listing });
      const workedAt = result.failure === null ? now : (lastResults.get(provider.name)?.workedAt ?? -Infinity);
      lastResults.set(provider.name, { failure: result.failure, workedAt });
      if (result.reported) remember(provider, result.models);
      return result;
    });
    cache.set(provider.name, { at: now, listing });
    return listing;
  }

  async function reachabilityOf(provider: Provider): Promise<Reachability> {
    const { name } = provider;
    await settledWithin(listingOf(provider), reachableMs);
    const { failure, workedAt } = lastResults.get(name) ?? { failure: timeoutReason(reachableMs), workedAt: -Infinity };
    const now = clock.monotonic();
    const accounts = providers.filter((other) => other.name === name);
    const circuits = accounts.flatMap((account) => openCircuits(account, now)).slice(0, maxCircuits);
    return {
      provider: name,
      ok: failure === null || accounts.some(({ health }) => health.isServing(workedAt, now)),
      ...(failure === null ? {} : { reason: failure }),
      ...(circuits.length === 0 ? {} : { circuits }),
    };
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
    reachability() {
      // Each key of a provider's is one of them.
      const first = providers.filter(({ name }, at) => providers.findIndex((other) => other.name === name) === at);
      return Promise.all(first.map(reachabilityOf));
    },
  };
}

function openCircuits({ keyIndex: key, health }: Provider, now: number): readonly OpenCircuit[] {
  const account = { key, model: "*", state: health.accountState(now) };
  const models = health.circuits(now).map(({ model, breaker: state }) => ({ key, model, state }));
  return [account, ...models].filter(({ state }) => state !== "closed");
}

/** Resolves when the promise, which does not reject, is settled, or after so many ms. */
async function settledWithin(promise: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}

/** Those of the models that the config lets through to the provider. */
function servedOf(provider: Provider, models: readonly string[]): readonly string[] {
  const matchers = provider.models.map(globMatcher);
  return models.filter((name) => matchers.some((matches) => matches(name)));
}

async function fetchListing(provider: Provider): Promise<Listing> {
  const unreported = (failure: string | null): Listing => ({
    models: provider.kind.knownModels,
    reported: false,
    failure,
  });
  try {
    const response = await request(`${provider.origin}${provider.basePath}/models${provider.query}`, {
      dispatcher: provider.dispatcher,
      headers: { ...provider.headers, accept: "application/json" },
      signal: AbortSignal.timeout(timeoutMs),
    });
    const { statusCode: status } = response;
    if (status !== 200) {
      await response.body.dump();
      // An answer is an answer: Zhipu may have no such route. Only a refused key means that nothing will work.
      return unreported(status < 500 && status !== 401 && status !== 403 ? null : `status ${status}`);
    }
    const models = readModels(JSON.parse(await readText(response, maxBytes)));
    return { models, reported: true, failure: null };
  } catch (error) {
    return unreported(failureReason(error, timeoutMs));
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
