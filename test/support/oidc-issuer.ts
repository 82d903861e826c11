import { generateKeyPairSync, type KeyPairKeyObjectResult } from "node:crypto";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { Provider, type Configuration } from "oidc-provider";
import { onTestFinished } from "vitest";

export const clientSecret = "oidc-client-secret-sentinel-77d1c2";

/** A real identity provider on loopback, for a client `proxy`. Its login asks for a name, which is the sub. */
export interface TestIssuer {
  readonly url: string;
  /** What it says of each sub, beside the sub. Whom it doesn't name has none. */
  readonly claims: Map<string, Readonly<Record<string, unknown>>>;
  /** Lets the client send browsers back there; with a new key. */
  open(redirectUri: string): void;
  close(): Promise<void>;
}

interface IssuerOptions {
  /** Whether claims are in the ID token too, and not only in userinfo. */
  readonly claimsInIdToken?: boolean;
  /** Call close, instead of at the end of the test. */
  readonly keep?: boolean;
}

let made: KeyPairKeyObjectResult | undefined;

/** One pair for all issuers of a process: to make one takes longer than most tests. */
export function signingKeys(): KeyPairKeyObjectResult {
  return (made ??= generateKeyPairSync("rsa", { modulusLength: 2048 }));
}

export async function startIssuer({ claimsInIdToken = false, keep = false }: IssuerOptions = {}): Promise<TestIssuer> {
  let handle: RequestListener = (_request, response) => {
    response.writeHead(503).end();
  };
  const server = createServer((request, response) => {
    handle(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const claims = new Map<string, Readonly<Record<string, unknown>>>();
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  if (!keep) onTestFinished(close);
  return {
    url,
    claims,
    open(redirectUri) {
      const key = signingKeys().privateKey.export({ format: "jwk" });
      const configuration: Configuration = {
        clients: [{ client_id: "proxy", client_secret: clientSecret, redirect_uris: [redirectUri] }],
        jwks: { keys: [{ ...key, alg: "RS256", use: "sig" }] as never },
        cookies: { keys: ["a key of this test"] },
        claims: { openid: ["sub"], profile: ["preferred_username", "realm_access", "groups"], email: ["email"] },
        conformIdTokenClaims: !claimsInIdToken,
        pkce: { required: () => true },
        findAccount: (_context, sub) => ({
          accountId: sub,
          claims: () => Promise.resolve({ sub, ...claims.get(sub) }),
        }),
      };
      const answer = new Provider(url, configuration).callback();
      handle = (request, response) => void answer(request, response);
    },
    close,
  };
}

/** A browser that follows redirects, keeps cookies by origin, and fills in the issuer's login with a name. */
export interface TestBrowser {
  /** GET; follows redirects as far as `stopAt`, a part of an address. Returns the last address and response. */
  go(url: string, options?: { readonly login?: string; readonly stopAt?: string }): Promise<Visit>;
  cookies(origin: string): ReadonlyMap<string, string>;
  setCookie(origin: string, name: string, value: string): void;
  /** The Cookie header for an address. */
  header(url: string): string;
}

interface Visit {
  readonly url: string;
  readonly response: Response;
}

export function createTestBrowser(): TestBrowser {
  const jars = new Map<string, Map<string, string>>();
  const jarOf = (url: string): Map<string, string> => {
    const { origin } = new URL(url);
    const jar = jars.get(origin) ?? new Map<string, string>();
    jars.set(origin, jar);
    return jar;
  };
  const header = (url: string): string => [...jarOf(url)].map(([name, value]) => `${name}=${value}`).join("; ");

  async function send(url: string, form?: Readonly<Record<string, string>>): Promise<Response> {
    const response = await fetch(url, {
      redirect: "manual",
      headers: { cookie: header(url), "sec-fetch-site": "cross-site" },
      ...(form === undefined ? {} : { method: "POST", body: new URLSearchParams(form) }),
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [pair = "", ...rules] = cookie.split(";");
      const [name = "", ...value] = pair.split("=");
      const isGone = rules.some((rule) => /^ *(max-age=0|expires=thu, 01 jan 1970)/i.test(rule));
      if (isGone) jarOf(url).delete(name);
      else jarOf(url).set(name, value.join("="));
    }
    return response;
  }

  return {
    async go(start, { login = "", stopAt = "\0" } = {}) {
      let url = start;
      let response = await send(url);
      for (let steps = 0; steps < 20; steps++) {
        const location = response.headers.get("location");
        if (location !== null) {
          url = new URL(location, url).href;
          if (url.includes(stopAt)) break;
          response = await send(url);
          continue;
        }
        if (!new URL(url).pathname.startsWith("/interaction/")) break;
        const prompt = (await response.text()).includes('value="consent"') ? "consent" : "login";
        response = await send(url, prompt === "login" ? { prompt, login, password: "any" } : { prompt });
      }
      return { url, response };
    },
    cookies: (origin) => jarOf(origin),
    setCookie(origin, name, value) {
      jarOf(origin).set(name, value);
    },
    header,
  };
}
