import type { CustomFetch, ServerMetadata } from "openid-client";
import { AppError } from "../../errors.ts";

/** How long an issuer may take for one answer, in s. */
export const timeoutSeconds = 10;
/** Largest response of an issuer, in bytes. */
const maxBytes = 1 << 20;

/** Says in one sentence why the discovery document of an issuer can't be used, and apart from that what to do. */
export class DiscoveryError extends Error {
  readonly fix: string;

  constructor(found: string, fix: string, cause?: unknown) {
    super(found, { cause });
    this.fix = fix;
  }
}

/**
 * Asks an issuer for its discovery document.
 *
 * @throws DiscoveryError
 */
export async function discover(issuer: string, clientId: string): Promise<ServerMetadata> {
  const client = await import("openid-client");
  let metadata: ServerMetadata;
  try {
    const found = await client.discovery(new URL(issuer), clientId, undefined, client.None(), {
      timeout: timeoutSeconds,
      // eslint-disable-next-line @typescript-eslint/no-deprecated -- only for loopback, see isPlain
      execute: isPlain(issuer) ? [client.allowInsecureRequests] : [],
      [client.customFetch]: boundedFetch,
    });
    metadata = found.serverMetadata();
  } catch (error) {
    throw toDiscoveryError(issuer, error);
  }
  // A document without them is kept by nobody: the next login asks for another.
  for (const endpoint of ["authorization_endpoint", "token_endpoint", "jwks_uri"] as const) {
    const value: unknown = metadata[endpoint];
    if (isEndpoint(value)) continue;
    const came = value === undefined ? "is missing" : `is ${shown(value)}`;
    throw new DiscoveryError(
      `${endpoint} ${came} in ${documentOf(issuer)}, where an http or https address is expected`,
      "ask the provider's operator: without it nobody can log in",
    );
  }
  return metadata;
}

function toDiscoveryError(issuer: string, error: unknown): DiscoveryError {
  const document = documentOf(issuer);
  const causes = causesOf(error);
  const last = causes.at(-1);
  const code: unknown = causes[0] === undefined ? undefined : Reflect.get(causes[0], "code");
  const elsewhere = "write into issuer the address that the provider gives for it: the document is below that";
  if (last?.cause instanceof Response) {
    const { status, headers } = last.cause;
    const came = status === 200 ? (headers.get("content-type") ?? "no content type").slice(0, 100) : `HTTP ${status}`;
    return new DiscoveryError(`${document} answers with ${came}, where JSON is expected`, elsewhere, error);
  }
  if (last instanceof SyntaxError)
    return new DiscoveryError(`${document} answers with text that is not valid JSON`, elsewhere, error);
  if (code === "OAUTH_INVALID_RESPONSE" || code === "ERR_INVALID_URL") {
    const found = `${document} is no discovery document: no issuer with an address stands in it`;
    return new DiscoveryError(found, elsewhere, error);
  }
  if (code === "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED") {
    const named = shown(issuerIn(last?.cause));
    const found = `the provider at ${issuer} calls itself ${named}, and issuer must be exactly that`;
    return new DiscoveryError(found, `write issuer = ${named} if that is the provider you mean`, error);
  }
  const reason = isTimeout(causes) ? `no answer within ${timeoutSeconds} s` : reasonOf(last);
  const fix = "check issuer, DNS and the firewall of this machine";
  return new DiscoveryError(`${document} can't be read: ${reason}`, fix, error);
}

/** Where the document of an issuer is, as the client asks for it. */
function documentOf(issuer: string): string {
  if (issuer.includes("/.well-known/")) return issuer;
  return `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
}

/** The issuer in a document that was refused. */
function issuerIn(refused: unknown): unknown {
  const body: unknown = typeof refused === "object" && refused !== null ? Reflect.get(refused, "body") : undefined;
  return typeof body === "object" && body !== null ? Reflect.get(body, "issuer") : undefined;
}

/** What OpenSSL says names its own source files; its code says the same. */
function reasonOf(error: Error | undefined): string {
  const code: unknown = error === undefined ? undefined : Reflect.get(error, "code");
  if (typeof code === "string" && code.startsWith("ERR_SSL")) return `TLS fails with ${code}`;
  return error?.message ?? "no answer";
}

function shown(value: unknown): string {
  return value === undefined ? "nothing" : JSON.stringify(value).slice(0, 300);
}

function isEndpoint(value: unknown): boolean {
  return typeof value === "string" && URL.canParse(value) && /^https?:$/.test(new URL(value).protocol);
}

/** Only loopback may be asked in plain text; see the schema. */
export function isPlain(issuer: string): boolean {
  return issuer.startsWith("http:");
}

/** What can't be reached, or fails by itself, is not the fault of who logs in. */
export const boundedFetch: CustomFetch = async (url, options) => {
  let response: Response;
  try {
    response = await fetch(url, options as RequestInit);
  } catch (cause) {
    throw new AppError("oidc_unavailable", { cause });
  }
  if (response.status >= 500) {
    await response.body?.cancel();
    const cause = new Error(`HTTP ${response.status} from ${new URL(url).host}`);
    throw new AppError("oidc_unavailable", { cause });
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new Error(`the response of ${new URL(url).host} is too large`);
    chunks.push(chunk);
  }
  const { status, headers } = response;
  return new Response(size === 0 ? null : Buffer.concat(chunks), { status, headers });
};

export function isTimeout(causes: readonly Error[]): boolean {
  return causes.some(({ name }) => name === "TimeoutError" || name === "AbortError");
}

/** An error and what caused it, the outermost first; at most 10. */
export function causesOf(error: unknown): readonly Error[] {
  const causes: Error[] = [];
  for (let cause = error; cause instanceof Error && causes.length < 10; cause = cause.cause) causes.push(cause);
  return causes;
}
