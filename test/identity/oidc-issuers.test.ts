import { createSign } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import type { OidcIssuerConfig } from "../../src/config/schema.ts";
import { discover, DiscoveryError } from "../../src/identity/oidc/discovery.ts";
import { createOidcIssuers } from "../../src/identity/oidc/issuers.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { signingKeys } from "../support/oidc-issuer.ts";

it.each([undefined, 7, "javascript:alert(1)", "/authorize"])(
  "asks again for a discovery document whose addresses are none: %j",
  async (wrong) => {
    const answers: object[] = [];
    const server = createServer((_request, answer) => {
      answer.setHeader("content-type", "application/json").end(JSON.stringify(answers.shift()));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const right = {
      issuer,
      authorization_endpoint: `${issuer}/auth`,
      token_endpoint: `${issuer}/token`,
      jwks_uri: `${issuer}/jwks`,
    };
    answers.push({ ...right, authorization_endpoint: wrong }, { ...right, jwks_uri: wrong }, right);
    const config: OidcIssuerConfig = {
      name: "work",
      issuer,
      client_id: "proxy",
      scopes: ["openid"],
      username_claim: "preferred_username",
      create_users: "never",
      roles: [],
      groups: [],
    };
    const issuers = createOidcIssuers({
      configs: () => [config],
      publicUrl: () => "http://localhost",
      secretOf: () => undefined,
      monotonic: () => performance.now(),
      log: createCapturedLog(),
    });
    await expect(issuers.begin("work")).rejects.toMatchObject({ code: "oidc_unavailable" });
    await expect(issuers.begin("work")).rejects.toMatchObject({ code: "oidc_unavailable" });
    expect((await issuers.begin("work")).location).toMatch(`${issuer}/auth?`);
    expect(answers).toEqual([]);
  },
);

it.each([
  [{ type: "text/html", body: "<html>" }, "answers with text/html, where JSON is expected"],
  [{ type: "application/json", body: "{" }, "answers with text that is not valid JSON"],
  [{ type: "application/json", body: "{}" }, "is no discovery document: no issuer with an address"],
  [{ type: "application/json", body: " ".repeat(2 << 20) }, "is too large"],
  [{ status: 503 }, "can't be read: HTTP 503 from 127.0.0.1"],
  [{ type: "application/json", body: '{"issuer":"work"}' }, "is no discovery document: no issuer with an address"],
  [{ type: "application/json", body: '{"issuer":"https://a/\\u001b[2J"}' }, 'calls itself "https://a/\\u001b[2J"'],
])("says in one sentence what is wrong with a discovery document: %j", async (given, expected) => {
  const { status = 200, type, body }: { status?: number; type?: string; body?: string } = given;
  const server = createServer((_request, answer) => {
    answer.writeHead(status, type === undefined ? {} : { "content-type": type }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const error: unknown = await discover(issuer, "proxy").catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(DiscoveryError);
  expect(String(error)).toContain(expected);
  expect(String(error)).toContain(issuer);
  expect(String(error)).not.toContain("something went wrong");
});

/** A provider whose ID tokens are right, but for what is changed. */
async function startForger(claims: Readonly<Record<string, unknown>>) {
  const { privateKey, publicKey } = signingKeys();
  const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString("base64url");
  let nonce = "";
  let issuer = "";
  const tokenOf = (): string => {
    const iat = Math.floor(Date.now() / 1000);
    const payload = encode({ iss: issuer, aud: "proxy", sub: "somebody", iat, exp: iat + 60, nonce, ...claims });
    const signed = `${encode({ alg: "RS256" })}.${payload}`;
    return `${signed}.${createSign("RSA-SHA256").update(signed).sign(privateKey, "base64url")}`;
  };
  const answers: Readonly<Record<string, () => object>> = {
    "/.well-known/openid-configuration": () => ({
      issuer,
      authorization_endpoint: `${issuer}/auth`,
      token_endpoint: `${issuer}/token`,
      jwks_uri: `${issuer}/jwks`,
      id_token_signing_alg_values_supported: ["RS256"],
    }),
    "/token": () => ({ access_token: "token", token_type: "bearer", id_token: tokenOf() }),
    "/jwks": () => ({ keys: [{ ...publicKey.export({ format: "jwk" }), alg: "RS256", use: "sig" }] }),
  };
  const server = createServer(({ url = "" }, answer) => {
    answer.setHeader("content-type", "application/json").end(JSON.stringify(answers[url]?.() ?? {}));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const config: OidcIssuerConfig = {
    name: "work",
    issuer,
    client_id: "proxy",
    scopes: ["openid"],
    username_claim: "name",
    create_users: "never",
    roles: [],
    groups: [],
  };
  const log = createCapturedLog();
  const issuers = createOidcIssuers({
    configs: () => [config],
    publicUrl: () => "http://localhost",
    secretOf: () => undefined,
    monotonic: () => performance.now(),
    log,
  });
  return {
    log,
    logIn: async () => {
      const challenge = await issuers.begin("work");
      ({ nonce } = challenge);
      return issuers.finish("work", `?code=x&state=${challenge.state}`, challenge);
    },
  };
}

it("takes a sub of 1 to 255 characters, and no other: all whose sub is empty would be one person", async () => {
  for (const sub of ["s", "s".repeat(255)]) expect((await (await startForger({ sub })).logIn()).sub).toBe(sub);
  for (const sub of ["", "s".repeat(256)]) {
    const { logIn, log } = await startForger({ sub });
    await expect(logIn()).rejects.toMatchObject({ code: "oidc_failed" });
    expect(JSON.stringify(log)).toContain(`sub has ${sub.length} characters`);
  }
});
