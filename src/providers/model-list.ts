import { request } from "undici";
import type { BreakerState } from "./breaker.ts";
import type { Clock } from "../lib/clock.ts";
import { globMatcher, isModelName } from "../lib/globs.ts";
import type { Provider } from "./provider.ts";
import { failureReason, readText, timeoutReason } from "./read-text.ts";

/** A model that clients may request. */
interface ListedModel {
  readonly id: string;
  /** The first provider for it. */
  readonly ownedBy: string;
}

/** Whether a provider can be reached: it lists its models, or requests show that it works. */
interface Reachability {
  readonly provider: string;
  readonly ok: boolean;
  /** Why it doesn't list its models: text, a code or a status, nothing secret. */
  readonly reason?: string;
  /** Circuits that are not closed; absent if there are none. */
  readonly circuits?: readonly OpenCircuit[];
}

interface OpenCircuit {
  /** Index of the key among the provider's keys. */
  readonly key: number;
  /** `*`: all models. */
  readonly model: string;
  readonly state: BreakerState;
}

export interface ModelList {
  /**
   * The models that the router can serve, sorted by name. Never rejects: if a provider is down, or slow, its last list
   * counts.
   */
  list(): Promise<readonly ListedModel[]>;
  /** One entry for each provider, within half a second: if a provider takes longer, its last result counts. */
  reachability(): Promise<readonly Reachability[]>;
  /** The models of the providers' last lists that the config allows; a new array after each change. */
  served(): readonly string[];
  /** Whether a provider may serve this name whose models aren't known: its list has not come yet, or it has none. */
  mayServe(name: string): boolean;
  /** Fetches a provider's list again if it is old. Never throws. */
  refresh(provider: Provider): void;
  /** Lists these providers from now on. What is known of those listed before stays. */
  configure(listed: ListedProviders): void;
}

/** The providers to list; one with several keys may be there several times. */
interface ListedProviders {
  readonly providers: readonly Provider[];
  readonly aliases: Readonly<Record<string, string>>;
}

interface Listing {
  /** The models that the provider reported; null if it reported none. */
  readonly models: readonly string[] | null;
  /** Why the provider could not be reached; null if it responded. */
  readonly failure: string | null;
}

/** How long a list is valid, and how long a request may take, in ms. */
const freshMs = 60_000;
const timeoutMs = 3_000;
/**
 * How long to wait for a response where an earlier one will do, in ms: `reachability` serves /healthz, which responds
 * within a second.
 */
const reachableMs = 500;
/** Most circuits listed for one provider. */
const maxCircuits = 100;
/** Largest list of models, in bytes; OpenRouter's has about one MiB. */
const maxBytes = 8 << 20;
/** Most names read from a list. */
const maxListed = 10_000;

/** Fetches the providers' model lists from time to time and keeps the models that the config allows. */
export function createModelList(options: ListedProviders & { readonly clock: Clock }): ModelList {
  let { providers, aliases } = options;
  const { clock } = options;
  const cache = new Map<string, { readonly at: number; readonly listing: Promise<Listing> }>();
  /** The last result of each provider, and the monotonic ms of the last request that succeeded. */
  const lastResults = new Map<string, { readonly failure: string | null; readonly workedAt: number }>();

  /** What each provider last reported; the known models of its kind before. */
  const reported = new Map<string, readonly string[]>();
  let served = allServed();

  function allServed(): readonly string[] {
    const byName = new Map(providers.map((one) => [one.name, servedOf(one, modelsOf(one))]));
    return [...byName.values()].flat();
  }

  function modelsOf({ name, kind }: Provider): readonly string[] {
    return reported.get(name) ?? kind.knownModels;
  }

  function remember(provider: Provider, models: readonly string[]): void {
    reported.set(provider.name, models);
    const now = allServed();
    if (now.length !== served.length || now.some((name, index) => name !== served[index])) served = now;
  }

  /** Whether a provider, or one with other figures at the same connections, is still listed. */
  function isListed({ name, dispatcher }: Provider): boolean {
    return providers.some((one) => one.name === name && one.dispatcher === dispatcher);
  }

  function listingOf(provider: Provider): Promise<Listing> {
    const now = clock.monotonic();
    const cached = cache.get(provider.name);
    if (cached !== undefined && now - cached.at < freshMs) return cached.listing;
    const listing = fetchListing(provider).then((result) => {
      if (!isListed(provider)) return result;
      // A failure is cached only briefly, but long enough that a flood of requests doesn't become a flood upstream.
      if (result.failure !== null) cache.set(provider.name, { at: clock.monotonic() - freshMs + timeoutMs, listing });
      const workedAt = result.failure === null ? now : (lastResults.get(provider.name)?.workedAt ?? -Infinity);
      lastResults.set(provider.name, { failure: result.failure, workedAt });
      if (result.models !== null) remember(provider, result.models);
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
      await Promise.all(
        sorted.map((provider) => {
          const listing = listingOf(provider);
          return lastResults.has(provider.name) ? settledWithin(listing, reachableMs) : listing;
        }),
      );
      for (const provider of sorted) {
        const plain = provider.models.filter((name) => !name.includes("*"));
        for (const id of [...plain, ...servedOf(provider, modelsOf(provider))]) {
          if (!owners.has(id)) owners.set(id, provider.name);
        }
        // A glob is not a name that clients could request.
        for (const [alias, target] of Object.entries(aliases).filter(([name]) => !name.includes("*"))) {
          if (!owners.has(alias) && servedOf(provider, [target]).length > 0) owners.set(alias, provider.name);
        }
      }
      return [...owners].map(([id, ownedBy]) => ({ id, ownedBy })).sort((a, b) => (a.id < b.id ? -1 : 1));
    },
    served: () => served,
    mayServe: (name) =>
      providers.some(
        (one) => !reported.has(one.name) && one.kind.knownModels.length === 0 && servedOf(one, [name]).length > 0,
      ),
    refresh: (provider) => void listingOf(provider),
    configure(listed) {
      const before = providers;
      ({ providers, aliases } = listed);
      for (const provider of before) {
        if (isListed(provider)) continue;
        cache.delete(provider.name);
        lastResults.delete(provider.name);
        reported.delete(provider.name);
      }
      served = allServed();
    },
    reachability() {
      // There is one entry for each key, so only the first of each name counts.
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

/** Resolves when the promise, which must not reject, is settled, or after `ms`. */
async function settledWithin(promise: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}

/** The models that the config allows for the provider. */
function servedOf(provider: Provider, models: readonly string[]): readonly string[] {
  const matchers = provider.models.map(globMatcher);
  return models.filter((name) => matchers.some((matches) => matches(name)));
}

async function fetchListing(provider: Provider): Promise<Listing> {
  const unreported = (failure: string | null): Listing => ({ models: null, failure });
  try {
    const response = await request(provider.origin + provider.kind.modelsPath(provider.basePath) + provider.query, {
      dispatcher: provider.dispatcher,
      headers: { ...provider.headers, accept: "application/json" },
      signal: AbortSignal.timeout(timeoutMs),
    });
    const { statusCode: status } = response;
    if (status !== 200) {
      await response.body.dump();
      // Other statuses are fine: Zhipu may have no such route. Only a rejected key means that nothing will work.
      return unreported(status < 500 && status !== 401 && status !== 403 ? null : `status ${status}`);
    }
    return { models: readModels(JSON.parse(await readText(response, maxBytes))), failure: null };
  } catch (error) {
    return unreported(failureReason(error, timeoutMs));
  }
}

/** The names that requests can have; null if it is no list, such as an error with a good status. */
function readModels(body: unknown): string[] | null {
  if (typeof body !== "object" || body === null || !("data" in body) || !Array.isArray(body.data)) return null;
  return body.data.slice(0, maxListed).flatMap((entry: unknown) => {
    const id = typeof entry === "object" && entry !== null && "id" in entry ? entry.id : undefined;
    return isModelName(id) ? [id] : [];
  });
}

/** The names of models that are known, from the config and from what providers list. */
export interface KnownModels {
  /**
   * The known name that an unknown one probably stands for: they differ only in case, or in white space or invisible
   * characters around the name. Undefined if the name is known or resembles none.
   */
  nearest(name: string): string | undefined;
  /**
   * As nearest(), for names that are to be stored. Undefined also where the known name is only one that a provider lists,
   * and another provider, whose models aren't known yet, may serve the unknown one: that one's list may have failed since
   * the start, and providers write names of the same model in different ways.
   */
  misspelled(name: string): string | undefined;
}

export interface KnownModelsOptions {
  /** Names in the config; globs are ignored. */
  readonly configured: readonly string[];
  /** The models that the providers are known to serve; a new array after each change. */
  readonly listed: () => readonly string[];
  /** Whether a provider may serve a name whose models aren't known. */
  readonly mayServe: (name: string) => boolean;
}

/**
 * Remembers the names. A server that ignores case or trims would take such a spelling for the model itself, which is
 * priced and limited under its correct name.
 */
export function createKnownModels({ configured, listed, mayServe }: KnownModelsOptions): KnownModels {
  const ownNames = new Set(configured.filter((name) => !name.includes("*")));
  let indexed: readonly string[] | undefined;
  let names: ReadonlySet<string> = new Set();
  let byFold: ReadonlyMap<string, string> = new Map();

  function index(): void {
    const latest = listed();
    if (latest === indexed) return;
    indexed = latest;
    names = new Set([...ownNames, ...latest]);
    // If several fold to the same, the first one, from the config, counts.
    byFold = new Map([...names].reverse().map((name) => [fold(name), name]));
  }

  function nearest(name: string): string | undefined {
    index();
    return names.has(name) ? undefined : byFold.get(fold(name));
  }

  return {
    nearest,
    misspelled(name) {
      const meant = nearest(name);
      return meant === undefined || ownNames.has(meant) || !mayServe(name) ? meant : undefined;
    },
  };
}

/** Nearly all names: nothing around them, and one lower-case form for each letter. */
const plain = /^[\x21-\x7e]*$/;
/** White space and invisible characters: format and control characters. */
const unseen = /^[\p{White_Space}\p{C}]$/u;

/** The name without white space and invisible characters around it, in one case. */
function fold(name: string): string {
  if (plain.test(name)) return name.toLowerCase();
  const letters = Array.from(name);
  let start = 0;
  let end = letters.length;
  while (start < end && unseen.test(letters[start] ?? "")) start++;
  while (end > start && unseen.test(letters[end - 1] ?? "")) end--;
  // Some letters have several lower-case forms for one capital: upper and then lower case maps them to the same.
  return letters.slice(start, end).join("").toUpperCase().toLowerCase();
}
