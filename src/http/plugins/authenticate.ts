import type { FastifyInstance, FastifyRequest } from "fastify";
import { AppError } from "../../errors.ts";
import type { Account } from "../../identity/account-schema.ts";
import type { Authenticate, Identity } from "../../identity/authenticate.ts";
import type { ApiKey } from "../../identity/keys/api-key.ts";
import { createSignatureCheck } from "../../identity/keys/request-signature.ts";
import type { Nonces } from "../../identity/nonces.ts";
import type { Origin } from "../../identity/sessions.ts";
import type { Clock } from "../../lib/clock.ts";
import { createIpList, type IpList } from "../../lib/ip-list.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /**
     * Who may use the route: anyone; users with an access token or an API key; or admins (and auditors, for reading)
     * from an allowed address. Absent: users with an access token.
     */
    access?: "public" | "api_key" | "admin";
    /** Whether the route is open to users who have logged in with a one-time password. */
    beforePasswordChange?: boolean;
    /** Whether the route is open to users who must set up a second factor first. */
    beforeSecondFactor?: boolean;
  }
  interface FastifyRequest {
    /** The API key of the request; null for access tokens and on public routes. */
    apiKey: ApiKey | null;
    /** The session of the access token; null for API keys and on public routes. */
    sessionId: string | null;
    /** Signs the requests of the API key; null if they need no signature. */
    signingSecret: string | null;
  }
}

/** The identity of a request by its cookie; undefined if it has none. Rejects as Authenticate does, and with `csrf`. */
type ByCookie = (request: FastifyRequest) => Promise<Identity> | undefined;

/**
 * Every route requires an access token unless it declares otherwise: routes are closed by default. Runs before the body
 * is read, and again once it is there: a client may send it late, and has lost the session, the account or a role
 * meanwhile. Returns a check for streams that last: it rejects if the request would be refused now.
 *
 * @param adminAddresses the addresses that may use admin routes now; none by default
 * @param byCookie who has logged in from a browser; by default nobody
 * @param lacksFactor whether an account must set up a second factor first; API keys go on all the same
 */
export function registerAuthentication(
  app: FastifyInstance,
  authenticate: Authenticate,
  adminAddresses: () => IpList = () => createIpList([]),
  byCookie: ByCookie = () => undefined,
  lacksFactor: (account: Account) => boolean = () => false,
): (request: FastifyRequest) => Promise<void> {
  app.decorateRequest("apiKey", null);
  app.decorateRequest("sessionId", null);
  app.decorateRequest("signingSecret", null);
  async function check(request: FastifyRequest): Promise<void> {
    const { access, beforePasswordChange = false, beforeSecondFactor = false } = request.routeOptions.config;
    // An unknown path is a 404 for everyone; there is nothing to protect.
    if (request.is404 || access === "public") return;
    const { account, apiKey, sessionId, signingSecret } = await identityOf(request, authenticate, byCookie);
    request.account = account;
    request.apiKey = apiKey;
    request.sessionId = sessionId;
    request.signingSecret = signingSecret;
    if (apiKey !== null && access !== "api_key") {
      throw new AppError("forbidden", { message: "API keys may not do that. Log in." });
    }
    if (account.must_change_password === true && !beforePasswordChange) {
      throw new AppError("password_change_required");
    }
    if (apiKey === null && !beforePasswordChange && !beforeSecondFactor && lacksFactor(account)) {
      throw new AppError("second_factor_required");
    }
    if (access === "admin") checkAdmin(request, account, adminAddresses());
  }
  app.addHook("onRequest", check);
  app.addHook("preValidation", (request, _reply, next) => {
    if (request.account === null || request.body === undefined) {
      next();
      return;
    }
    check(request).then(() => {
      next();
    }, next);
  });
  return check;
}

function checkAdmin({ method, ip }: FastifyRequest, { roles }: Account, addresses: IpList): void {
  const reads = method === "GET" || method === "HEAD";
  if (!roles.includes("admin") && !(reads && roles.includes("auditor"))) throw new AppError("forbidden");
  if (!addresses.has(ip)) throw new AppError("address_not_allowed");
}

/** The account of an authenticated request. */
export function accountOfRequest(request: FastifyRequest): Account {
  if (request.account === null) throw new AppError("missing_token");
  return request.account;
}

/** The origin of a request, as a session records it. */
export function originOfRequest(request: FastifyRequest): Origin {
  const client = (request.headers["user-agent"] ?? "").replace(/[^\x20-\x7e]/g, "?").slice(0, 120);
  return { ip: request.ip, client, traceId: request.id };
}

/**
 * `Authorization: Bearer`, `api-key` and `x-api-key` (Anthropic's) may each hold an access token or an API key. Some
 * programs send several, some of them made up: Authorization is tried first; if it is refused, `api-key` or else
 * `x-api-key` is tried. A browser's cookie counts only where none of them is sent.
 */
async function identityOf(request: FastifyRequest, authenticate: Authenticate, byCookie: ByCookie): Promise<Identity> {
  const bearer = bearerOf(request);
  const apiKey = headerOf(request, "api-key") ?? headerOf(request, "x-api-key");
  if (bearer === undefined) {
    if (apiKey === undefined) {
      const identity = byCookie(request);
      if (identity === undefined) throw new AppError("missing_token");
      return identity;
    }
    return authenticate(apiKey, request.ip);
  }
  try {
    return await authenticate(bearer, request.ip);
  } catch (refusal) {
    if (apiKey === undefined) throw refusal;
    try {
      return await authenticate(apiKey, request.ip);
    } catch (second) {
      // Nobody knows whether that credential is valid: trying again later may help.
      throw second instanceof AppError && second.code === "storage_unavailable" ? second : refusal;
    }
  }
}

function headerOf({ headers }: FastifyRequest, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}

function bearerOf({ headers: { authorization } }: FastifyRequest): string | undefined {
  if (authorization?.slice(0, 7).toLowerCase() !== "bearer ") return undefined;
  const token = authorization.slice(7).trim();
  return token === "" ? undefined : token;
}

interface SignaturesOptions {
  readonly nonces: Nonces;
  readonly clock: Clock;
}

const none = Buffer.alloc(0);

/** Checks the signature of requests whose API key requires one, once the body has arrived. Others cost nothing. */
export function registerSignatures(app: FastifyInstance, options: SignaturesOptions): void {
  const check = createSignatureCheck(options);
  app.addHook("preValidation", (request, _reply, next) => {
    const { apiKey, signingSecret } = request;
    if (apiKey === null || signingSecret === null) {
      next();
      return;
    }
    checkRequest(apiKey.id, signingSecret, request).then(() => {
      next();
    }, next);
  });

  async function checkRequest(keyId: string, secret: string, request: FastifyRequest): Promise<void> {
    await check(keyId, secret, {
      method: request.method,
      target: request.originalUrl,
      body: request.bodyBytes ?? none,
      timestamp: header(request, "x-signature-timestamp"),
      nonce: header(request, "x-signature-nonce"),
      signature: header(request, "x-signature"),
    });
  }
}

function header(request: FastifyRequest, name: string): string {
  const value = request.headers[name];
  if (typeof value === "string") return value;
  throw new AppError("signature_invalid", { message: `This API key signs its requests: ${name} is missing.` });
}
