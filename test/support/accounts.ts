import { bearer, post, type RunningProxy } from "./start-proxy.ts";

/** The answer of a login or a refresh. */
export interface Tokens {
  readonly token: string;
  readonly refresh_token: string;
  readonly expires_in: number;
  readonly refresh_expires_in: number;
  readonly password_change_required?: true;
}

/** Status and JSON body ({} where there is none). */
export interface JsonAnswer<T = Record<string, unknown>> {
  readonly status: number;
  readonly body: T & {
    readonly error?: { readonly code: string; readonly param: string | null; readonly message: string };
  };
}

/** Reads an answer of any status. */
export async function jsonOf<T>(answering: Promise<Response>): Promise<JsonAnswer<T>> {
  const answer = await answering;
  const text = await answer.text();
  return { status: answer.status, body: (text === "" ? {} : JSON.parse(text)) as JsonAnswer<T>["body"] };
}

/** Logs in as a program of its own, so that the login is not taken for a repetition of another one. */
export async function logIn(
  proxy: Pick<RunningProxy, "url">,
  username: string,
  password: string,
  client = "test",
): Promise<Tokens> {
  const body = { username, password };
  const answer = await jsonOf<Tokens>(post(`${proxy.url}/auth/login`, body, { "user-agent": client }));
  if (answer.status !== 200) throw new Error(`login failed: ${JSON.stringify(answer.body)}`);
  return answer.body;
}

/** Exchanges a refresh token. */
export function refresh(proxy: Pick<RunningProxy, "url">, refresh_token: string): Promise<JsonAnswer<Tokens>> {
  return jsonOf<Tokens>(post(`${proxy.url}/auth/refresh`, { refresh_token }));
}

/** A request with a credential, without a body. */
export function ask<T>(
  proxy: Pick<RunningProxy, "url">,
  route: string,
  credential: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<JsonAnswer<T>> {
  const [method = "", path = ""] = route.split(" ");
  return jsonOf<T>(fetch(`${proxy.url}${path}`, { method, headers: { ...bearer(credential), ...headers } }));
}

/** The status of GET /auth/quota: whether a credential is good. */
export async function statusOf(proxy: Pick<RunningProxy, "url">, credential: string): Promise<number> {
  return (await ask(proxy, "GET /auth/quota", credential)).status;
}
