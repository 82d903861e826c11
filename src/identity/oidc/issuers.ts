import type * as Client from "openid-client";
import type { ServerMetadata } from "openid-client";
import type { OidcIssuerConfig } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import type { Log } from "../../lib/log.ts";
import type { ExternalIdentity } from "../external-logins.ts";
import { type Claims, claimPaths, valueAt } from "./claims.ts";
import { boundedFetch, causesOf, discover, DiscoveryError, isPlain, isTimeout, timeoutSeconds } from "./discovery.ts";

/** What a browser brings back from an issuer is checked against these. Secret until then. */
interface Challenge {
  readonly state: string;
  readonly nonce: string;
  /** PKCE's. */
  readonly verifier: string;
}

/** Identity providers that speak OpenID Connect, as [[oidc]] names them. */
export interface OidcIssuers {
  /** The config of an issuer. @throws AppError `not_found` */
  config(name: string): OidcIssuerConfig;
  /**
   * Where to send a browser for a login.
   *
   * @throws AppError `not_found`, `oidc_unavailable`
   */
  begin(name: string): Promise<Challenge & { readonly location: string }>;
  /**
   * Who has come back from an issuer. Checks state, iss (RFC 9207) and the ID token with its nonce and signature.
   *
   * @param search the query of the callback, with its question mark
   * @throws AppError `not_found`, `oidc_failed`, `oidc_cancelled`, `oidc_unavailable`
   */
  finish(name: string, search: string, challenge: Challenge): Promise<ExternalIdentity & { readonly claims: Claims }>;
}

export interface OidcIssuersOptions {
  /** [[oidc]] in force. */
  readonly configs: () => readonly OidcIssuerConfig[];
  /** panel.public_url in force. */
  readonly publicUrl: () => string | undefined;
  /** The client secret now; undefined for public clients. May throw. */
  readonly secretOf: (config: OidcIssuerConfig) => string | undefined;
  readonly monotonic: () => number;
  readonly log: Log;
}

/** How long a discovery document is used, in ms. Keys are read at every login, so that a new one is good at once. */
const keepMs = 3_600_000;

const maxSubLength = 255;

interface Discovered {
  readonly of: string;
  readonly at: number;
  readonly metadata: Promise<ServerMetadata>;
}

/** Creates the client of all issuers. Nothing is asked before the first login, so that an issuer may be down. */
export function createOidcIssuers(options: OidcIssuersOptions): OidcIssuers {
  const { configs, publicUrl, secretOf, monotonic, log } = options;
  const discovered = new Map<string, Discovered>();

  function configOf(name: string): OidcIssuerConfig {
    const found = configs().find((one) => one.name === name);
    if (found !== undefined) return found;
    throw new AppError("not_found", { message: "There is no such identity provider." });
  }

  /** The discovery document, shared by all who ask for it at once. One that could not be read is asked for again. */
  function metadataOf(config: OidcIssuerConfig): Promise<ServerMetadata> {
    const { name, issuer, client_id: clientId } = config;
    const known = discovered.get(name);
    if (known?.of === issuer && monotonic() - known.at < keepMs) return known.metadata;
    const names = new Set(configs().map((one) => one.name));
    for (const other of discovered.keys()) if (!names.has(other)) discovered.delete(other);
    const metadata = discover(issuer, clientId);
    const entry = { of: issuer, at: monotonic(), metadata };
    discovered.set(name, entry);
    metadata.catch(() => {
      if (discovered.get(name) === entry) discovered.delete(name);
    });
    return metadata;
  }

  /** A new one each time: it remembers keys, which the issuer may have replaced. */
  async function open(config: OidcIssuerConfig) {
    const client = await import("openid-client");
    const secret = readSecret(config);
    const metadata = await metadataOf(config);
    const opened = new client.Configuration(metadata, config.client_id, undefined, authOf(client, metadata, secret));
    // eslint-disable-next-line @typescript-eslint/no-deprecated -- only for loopback, see isPlain
    if (isPlain(config.issuer)) client.allowInsecureRequests(opened);
    client.enableNonRepudiationChecks(opened);
    opened.timeout = timeoutSeconds;
    opened[client.customFetch] = boundedFetch;
    return { client, opened };
  }

  function readSecret(config: OidcIssuerConfig): string | undefined {
    try {
      return secretOf(config);
    } catch (cause) {
      throw new AppError("oidc_unavailable", { cause });
    }
  }

  const callbackOf = (name: string): string => `${publicUrl() ?? ""}/panel/api/oidc/${name}/callback`;

  /** The error of a login, and in the log what an operator needs to know: what issuers say contains no secret of ours. */
  function toAppError(name: string, error: unknown, otherwise: "oidc_failed" | "oidc_unavailable"): AppError {
    const causes = causesOf(error);
    const known = causes.find((one) => one instanceof AppError);
    const undiscovered = causes.find((one) => one instanceof DiscoveryError);
    const isCancelled = causes.some((one) => Reflect.get(one, "error") === "access_denied");
    const code = isCancelled ? "oidc_cancelled" : (known?.code ?? (isTimeout(causes) ? "oidc_unavailable" : otherwise));
    const chain = causes.map(({ message }) => message).join(": ");
    const reasons = undiscovered === undefined ? chain : `${undiscovered.message}; ${undiscovered.fix}`;
    if (!isCancelled)
      log.warn({ issuer: name, code, reason: reasons.slice(0, 500) }, "a login with OpenID Connect failed");
    return new AppError(code, { cause: error });
  }

  return {
    config: configOf,
    async begin(name) {
      const config = configOf(name);
      try {
        const { client, opened } = await open(config);
        const [state, nonce, verifier] = [client.randomState(), client.randomNonce(), client.randomPKCECodeVerifier()];
        const location = client.buildAuthorizationUrl(opened, {
          redirect_uri: callbackOf(name),
          scope: config.scopes.join(" "),
          state,
          nonce,
          code_challenge: await client.calculatePKCECodeChallenge(verifier),
          code_challenge_method: "S256",
        });
        return { state, nonce, verifier, location: location.href };
      } catch (error) {
        throw toAppError(name, error, "oidc_unavailable");
      }
    },
    async finish(name, search, { state, nonce, verifier }) {
      const config = configOf(name);
      try {
        const { client, opened } = await open(config);
        // The address behind a reverse proxy is not what the issuer knows: only the query is taken from the request.
        const tokens = await client.authorizationCodeGrant(opened, new URL(callbackOf(name) + search), {
          pkceCodeVerifier: verifier,
          expectedState: state,
          expectedNonce: nonce,
          idTokenExpected: true,
        });
        const idToken = tokens.claims();
        if (idToken === undefined) throw new Error("there is no ID token");
        const { sub } = idToken;
        // OpenID Connect Core, 2. All whose sub is empty would be one person.
        if (sub.length < 1 || sub.length > maxSubLength)
          throw new Error(`sub has ${sub.length} characters, where 1 to ${maxSubLength} are expected`);
        const isWhole = claimPaths(config).every((path) => valueAt(idToken, path) !== undefined);
        const asks = !isWhole && opened.serverMetadata().userinfo_endpoint !== undefined;
        const userinfo = asks ? await client.fetchUserInfo(opened, tokens.access_token, sub) : {};
        return { issuer: idToken.iss, sub, claims: { idToken, userinfo } };
      } catch (error) {
        throw toAppError(name, error, "oidc_failed");
      }
    },
  };
}

/** As OpenID Connect has it by default, unless the issuer knows the other way only. */
function authOf(client: typeof Client, metadata: ServerMetadata, secret: string | undefined) {
  if (secret === undefined) return client.None();
  const known = metadata.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
  return known.includes("client_secret_basic") ? client.ClientSecretBasic(secret) : client.ClientSecretPost(secret);
}
