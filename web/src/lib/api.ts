import { askForLogin, factorAsked, session } from "./session.ts";

/** A response that says no: the proxy's code, and what to tell an operator. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly requestId: string;
  readonly param: string | null;

  constructor(status: number, code: string, message: string, requestId: string, param: string | null) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
    this.param = param;
  }
}

/** What was typed is wrong, as the panel itself can see. */
export function inputError(message: string, param: string): ApiError {
  return new ApiError(0, "", message, "", param);
}

interface Options {
  readonly body?: unknown;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/**
 * Sends a request with the panel's cookie. A 401 shows the login on top of the page; then the same is sent again, and
 * nothing typed is lost. Throws ApiError.
 */
export async function send(method: string, path: string, options: Options = {}): Promise<Response> {
  for (;;) {
    const response = await fetchOnce(method, path, options);
    if (response.ok) return response;
    const error = await errorOf(response);
    // Only with a session was somebody logged in here; the login page itself shows its own errors.
    if (response.status === 401 && session.value !== null && !path.startsWith("/panel/api/log")) {
      await askForLogin();
      continue;
    }
    if (error.code === "password_change_required" && session.value !== null) {
      session.value = { ...session.value, must_change_password: true };
    }
    if (error.code === "second_factor_required" && session.value !== null) factorAsked.value = true;
    throw error;
  }
}

async function fetchOnce(
  method: string,
  path: string,
  { body, query = {}, headers, signal }: Options,
): Promise<Response> {
  const asked = new URLSearchParams();
  for (const [key, value] of Object.entries(query))
    if (value !== undefined && value !== "") asked.set(key, String(value));
  const text = asked.toString();
  try {
    return await fetch(path + (text === "" ? "" : `?${text}`), {
      method,
      headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new ApiError(0, "unreachable", "", "", null);
  }
}

/** The error of a response. A reverse proxy may have sent it, with HTML in it. */
export async function errorOf(response: Response): Promise<ApiError> {
  const id = response.headers.get("x-request-id") ?? "";
  try {
    const { error } = (await response.json()) as {
      error: { message: string; code: string; param?: string | null; trace_id?: string };
    };
    return new ApiError(response.status, error.code, error.message, error.trace_id ?? id, error.param ?? null);
  } catch {
    return new ApiError(response.status, `http_${response.status}`, response.statusText, id, null);
  }
}

/** GET, as JSON. The types of responses are those of /openapi.json. */
export async function get<T>(path: string, query?: Options["query"], signal?: AbortSignal): Promise<T> {
  const response = await send("GET", path, { ...(query && { query }), ...(signal && { signal }) });
  return (await response.json()) as T;
}

/** A value with its entity tag, by which a change says what it is a change of. */
export interface Tagged<T> {
  readonly value: T;
  readonly etag: string;
}

/** GET with the entity tag. */
export async function getTagged<T>(path: string, signal?: AbortSignal): Promise<Tagged<T>> {
  const response = await send("GET", path, { ...(signal && { signal }) });
  return { value: (await response.json()) as T, etag: response.headers.get("etag") ?? "" };
}

/** Sends a change; undefined where the response has no body. */
export async function change<T = undefined>(
  method: "POST" | "PUT" | "PATCH" | "DELETE",
  path: string,
  body?: unknown,
  headers?: Options["headers"],
): Promise<T> {
  const response = await send(method, path, { ...(body !== undefined && { body }), ...(headers && { headers }) });
  const text = await response.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

/** PATCH of the version with this entity tag, if one is given; returns the tag of the new version. */
export async function patch(path: string, fields: unknown, etag?: string): Promise<string> {
  const headers = etag === undefined ? {} : { "if-match": etag };
  const response = await send("PATCH", path, { body: fields, headers });
  return response.headers.get("etag") ?? "*";
}

/** A part of a path. */
export function part(text: string): string {
  return encodeURIComponent(text);
}
