import { errorOfResponse, ProxyError } from "./errors.ts";
import { signRequest } from "./signing.ts";
import { createMemoryStore, createTokenSource, type TokenSource, type TokenStore } from "./tokens.ts";
import { tellingMismatch, type VersionMismatch } from "./version.ts";

/** Whom the proxy is asked as. */
export interface ProxyAccess {
  /** The proxy's root, such as `https://proxy.example`. A `/v1` or `/anthropic` at its end is left out. */
  readonly baseUrl: string;
  /** Logs in with these; refreshes from then on. */
  readonly username?: string;
  readonly password?: string;
  /** Asked for a code where the user has a second factor, at each login. */
  readonly otp?: () => string | Promise<string>;
  /** An API key (`dsp_…`) in place of a login. */
  readonly apiKey?: string;
  /** The signing secret (`dss_…`) of an API key that signs its requests. */
  readonly signing?: { readonly secret: string };
  /** Where the tokens of a session are kept; by default in memory. */
  readonly store?: TokenStore;
  /** What sends requests; by default the global fetch. */
  readonly fetch?: typeof globalThis.fetch;
  /** Told once if the proxy is of a version that this package was not made for; by default a warning on the console. */
  readonly onVersionMismatch?: (mismatch: VersionMismatch) => void;
  /** ms since the epoch. For tests. */
  readonly now?: () => number;
}

/** A fetch that authenticates what it sends, and the session behind it. */
export interface ProxyConnection {
  readonly fetch: typeof globalThis.fetch;
  /** The proxy's root, without a slash at the end. */
  readonly baseUrl: string;
  /** undefined with an API key. */
  readonly tokens: TokenSource | undefined;
}

/** Codes of a 401 after which another access token may help. Nothing has been sent to a model then. */
const renewable: ReadonlySet<string> = new Set(["token_expired", "invalid_token"]);
/** Ends of the base URLs that SDKs take. */
const apiRoots: ReadonlySet<string> = new Set(["v1", "beta", "anthropic"]);
type FetchInput = Parameters<typeof globalThis.fetch>[0];
type FetchInit = Parameters<typeof globalThis.fetch>[1];

/**
 * Creates a fetch for `new OpenAI({ fetch })`, `new Anthropic({ fetch })` and the AI SDK: it logs in, refreshes before
 * the access token expires (once for all requests that wait), signs if asked to, and repeats a request once whose
 * access token was refused. A refused login is returned as the answer, so that SDKs show its status and code.
 *
 * Sends credentials to the proxy only: other addresses throw TypeError.
 */
export function createProxyFetch(access: ProxyAccess): typeof globalThis.fetch {
  return connectProxy(access).fetch;
}

/** The same, with the session. */
export function connectProxy(access: ProxyAccess): ProxyConnection {
  const { apiKey, username, password, otp, signing } = access;
  const baseUrl = rootOf(access.baseUrl);
  const send = tellingMismatch(
    access.fetch ?? ((input: FetchInput, init?: FetchInit) => globalThis.fetch(input, init)),
    access.onVersionMismatch ?? warn,
  );
  const store = access.store ?? createMemoryStore();
  if (apiKey === undefined && access.store === undefined && (username === undefined || password === undefined)) {
    throw new TypeError("The proxy needs username and password, an apiKey, or a store with the tokens of a session.");
  }
  if (signing !== undefined && apiKey === undefined) throw new TypeError("Only requests of an apiKey are signed.");
  const tokens =
    apiKey === undefined
      ? createTokenSource({ baseUrl, username, password, otp, store, fetch: send, now: access.now ?? Date.now })
      : undefined;

  const proxyFetch = async (input: FetchInput, init?: FetchInit): Promise<Response> => {
    const request = new Request(input, init);
    const url = new URL(request.url);
    if (!isBelow(url, baseUrl)) throw new TypeError(`${url.origin} is not the proxy: it gets no credentials.`);
    // A body that has been read can be signed, and sent a second time.
    const body = request.body === null ? undefined : new Uint8Array(await request.arrayBuffer());

    const sendAs = async (token: string): Promise<Response> => {
      const headers = new Headers(request.headers);
      // What SDKs put there is made up.
      headers.delete("x-api-key");
      headers.delete("api-key");
      headers.set("authorization", `Bearer ${token}`);
      if (signing !== undefined) {
        const target = `${url.pathname}${url.search}`;
        const signature = await signRequest(signing.secret, { method: request.method, target, body });
        for (const [name, value] of Object.entries(signature)) headers.set(name, String(value));
      }
      const { method, signal } = request;
      return send(url.href, { ...init, method, headers, signal, ...(body === undefined ? {} : { body }) });
    };

    if (tokens === undefined) return sendAs(apiKey ?? "");
    try {
      const token = await unlessAborted(tokens.current(), request.signal);
      const response = await sendAs(token);
      if (response.status !== 401) return response;
      const refusal = await errorOfResponse(response);
      if (!renewable.has(refusal.code)) return answerOf(refusal) ?? response;
      return await sendAs(await unlessAborted(tokens.renew(token), request.signal));
    } catch (error) {
      const answer = error instanceof ProxyError ? answerOf(error) : undefined;
      if (answer === undefined) throw error;
      return answer;
    }
  };
  return { fetch: proxyFetch, baseUrl, tokens };
}

function answerOf({ answer }: ProxyError): Response | undefined {
  if (answer === undefined) return undefined;
  const headers = new Headers(answer.headers);
  // The body has been decoded.
  headers.delete("content-encoding");
  headers.delete("content-length");
  return new Response(answer.body, { status: answer.status, headers });
}

/** One caller's abort ends its own waiting, not the refresh that others wait for. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      reject(signal.reason instanceof Error ? signal.reason : new DOMException("Aborted.", "AbortError"));
    };
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => {
      signal.removeEventListener("abort", abort);
    });
  });
}

function warn({ message }: VersionMismatch): void {
  // eslint-disable-next-line no-console -- a library without a logger has nothing else to tell people by
  console.warn(message);
}

function rootOf(baseUrl: string): string {
  const url = new URL(baseUrl);
  const steps = url.pathname.split("/").filter((step) => step !== "");
  while (apiRoots.has(steps.at(-1) ?? "")) steps.pop();
  return [url.origin, ...steps].join("/");
}

function isBelow(url: URL, baseUrl: string): boolean {
  return url.href.startsWith(`${baseUrl}/`);
}
