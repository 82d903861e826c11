import { type AdminClient, createAdminClient } from "./admin.ts";
import { createCall, type Json, queryOf } from "./call.ts";
import { type ChatOptions, type ChatRequest, type ChatStream, streamChat } from "./chat.ts";
import { connectProxy, type ProxyAccess } from "./proxy-fetch.ts";
import type { RetryNotice, RetryPolicy } from "./retry.ts";

/** Options of createClient. */
export interface ClientOptions extends ProxyAccess {
  readonly retry?: RetryPolicy;
  /** Told of repeats of all calls but chats, which have a callback of their own. */
  readonly onRetry?: (notice: RetryNotice) => void;
}

/** A limit, and how much of it is used. */
export interface QuotaLimit {
  readonly metric: string;
  readonly per: string;
  /** For costs only; the numbers are in its units. */
  readonly currency?: string;
  readonly api_key?: string;
  readonly group?: string;
  readonly max: number;
  readonly used: number;
  readonly reserved: number;
  readonly remaining: number;
  /** ISO 8601; null if it never resets. */
  readonly reset_at: string | null;
}

/** What GET /auth/quota answers. */
export interface Quota {
  readonly username: string;
  readonly tier: string;
  readonly limits: readonly QuotaLimit[];
}

/** Days (`2026-11-26`) and grouping of a usage query. */
export interface UsageQuery {
  readonly from?: string;
  readonly to?: string;
  readonly by?: "day" | "model" | "key" | "both";
}

/** What the proxy keeps of an API key, without the key. */
export interface ApiKey {
  readonly id: string;
  readonly name: string;
  readonly created_at: string;
  readonly expires_at: string | null;
  readonly require_signature: boolean;
  readonly [field: string]: unknown;
}

/** Settings of a new key. */
export interface NewApiKey {
  readonly name: string;
  readonly expires_at?: string;
  readonly require_signature?: boolean;
  readonly models?: readonly string[];
  readonly addresses?: readonly string[];
  readonly [field: string]: unknown;
}

/** What people do with the proxy. All calls throw ProxyError. */
export interface ProxyClient {
  /** For SDKs: authenticates as this client does. */
  readonly fetch: typeof globalThis.fetch;
  /** A streamed chat: iterate over its chunks, or await `.result()`. */
  chat(request: ChatRequest, options?: ChatOptions): ChatStream;
  quota(): Promise<Quota>;
  usage(query?: UsageQuery): Promise<Json>;
  balance(): Promise<Json>;
  models(): Promise<readonly Json[]>;
  readonly keys: {
    list(): Promise<readonly ApiKey[]>;
    /** The key itself is in the answer, and shown only there. */
    create(key: NewApiKey): Promise<ApiKey & { readonly key: string; readonly signing_secret?: string }>;
    delete(id: string): Promise<void>;
  };
  /** Ends the session at the proxy. */
  logout(): Promise<void>;
  readonly admin: AdminClient;
}

/** Creates a client. Nothing is sent before its first call. */
export function createClient(options: ClientOptions): ProxyClient {
  const { fetch, baseUrl, tokens } = connectProxy(options);
  const { retry = {}, onRetry } = options;

  const call = createCall({ baseUrl, fetch, retry, onRetry });

  return {
    fetch,
    chat: (request, chatOptions = {}) => streamChat({ baseUrl, fetch, retry }, request, chatOptions),
    quota: async () => (await call("GET", "/auth/quota")) as Quota,
    usage: async (query = {}) => (await call("GET", `/auth/usage${queryOf(query)}`)) as Json,
    balance: async () => (await call("GET", "/user/balance")) as Json,
    models: async () => ((await call("GET", "/v1/models")) as { readonly data: readonly Json[] }).data,
    keys: {
      list: async () => ((await call("GET", "/auth/keys")) as { readonly keys: readonly ApiKey[] }).keys,
      create: async (key) => (await call("POST", "/auth/keys", key)) as ApiKey & { key: string },
      async delete(id) {
        await call("DELETE", `/auth/keys/${encodeURIComponent(id)}`);
      },
    },
    async logout() {
      await tokens?.end();
    },
    admin: createAdminClient(call),
  };
}
