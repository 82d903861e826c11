import { errorOfResponse, jsonOfResponse, ProxyError } from "./errors.ts";
import { connectionError, type RetryNotice, type RetryPolicy, withRetries } from "./retry.ts";

/** JSON whose shape the proxy's /openapi.json tells. */
export type Json = Readonly<Record<string, unknown>>;

/** Sends one JSON request. undefined: the answer has no body. */
export type Call = (method: string, path: string, body?: object) => Promise<unknown>;

/** `?a=1&b=2`; "" for none. */
export function queryOf(fields: object): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) params.append(name, String(value));
  const query = params.toString();
  return query === "" ? "" : `?${query}`;
}

/** Creates what sends all requests but chats. */
export function createCall(connection: {
  readonly baseUrl: string;
  readonly fetch: typeof globalThis.fetch;
  readonly retry: RetryPolicy;
  readonly onRetry: ((notice: RetryNotice) => void) | undefined;
}): Call {
  const { baseUrl, fetch, retry, onRetry } = connection;

  async function send(method: string, path: string, body: object | undefined): Promise<unknown> {
    const content = body === undefined ? {} : { "content-type": "application/json" };
    const response = await fetch(`${baseUrl}${path}`, {
      method,
      headers: { accept: "application/json", ...content },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }).catch((cause: unknown) => {
      throw cause instanceof ProxyError ? cause : connectionError(cause);
    });
    if (!response.ok) throw await errorOfResponse(response);
    return jsonOfResponse(response);
  }

  return (method, path, body) => withRetries(() => send(method, path, body), retry, undefined, onRetry);
}
