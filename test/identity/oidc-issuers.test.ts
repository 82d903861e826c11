import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import type { OidcIssuerConfig } from "../../src/config/schema.ts";
import { discover, DiscoveryError } from "../../src/identity/oidc/discovery.ts";
import { createOidcIssuers } from "../../src/identity/oidc/issuers.ts";
import { createCapturedLog } from "../support/captured-log.ts";

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
      ...{ name: "work", issuer, client_id: "proxy", scopes: ["openid"], username_claim: "preferred_username" },
      ...{ create_users: "never", roles: [], groups: [] },
    };
    const issuers = createOidcIssuers({
      ...{ configs: () => [config], publicUrl: () => "http://localhost", secretOf: () => undefined },
      ...{ monotonic: () => performance.now(), log: createCapturedLog() },
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
