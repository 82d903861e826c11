import type { OidcIssuerConfig } from "../config/schema.ts";
import { readClientSecret } from "../config/oidc-secrets.ts";
import { createOidcIssuers } from "../identity/oidc/issuers.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { type DoctorCall, type Finding, messageOf } from "./doctor-events.ts";
import { silent } from "./this-process.ts";

/** Checks each [[oidc]]: its client secret, and the discovery document that a login would ask for. */
export async function checkOidc(call: DoctorCall): Promise<readonly Finding[]> {
  return (await Promise.all(call.loaded.config.oidc.map((issuer) => checkIssuer(issuer, call)))).flat();
}

/** A line for each client secret that a login would miss. */
export function oidcSecretProblems({ loaded, env }: DoctorCall): readonly string[] {
  return loaded.config.oidc.flatMap((issuer) => {
    try {
      readClientSecret(issuer, env, loaded.folder);
      return [];
    } catch (error) {
      return [messageOf(error)];
    }
  });
}

async function checkIssuer(issuer: OidcIssuerConfig, { loaded, env }: DoctorCall): Promise<readonly Finding[]> {
  const what = `oidc ${issuer.name}`;
  const findings: Finding[] = [];
  try {
    readClientSecret(issuer, env, loaded.folder);
  } catch (error) {
    const { client_secret_env: variable, client_secret_file: file } = issuer;
    const fix =
      variable === undefined ? `write the client's secret into ${file ?? ""}` : `set ${variable} for the server`;
    findings.push({ level: "FAIL", what, found: messageOf(error), fix });
  }
  const reasons: string[] = [];
  const issuers = createOidcIssuers({
    configs: () => [issuer],
    publicUrl: () => loaded.config.panel.public_url,
    // The document is public: what is wrong with the secret is said above.
    secretOf: () => undefined,
    monotonic: () => clock.monotonic(),
    log: { ...silent, warn: (facts: object) => void reasons.push(String(Reflect.get(facts, "reason"))) },
  });
  try {
    await issuers.begin(issuer.name);
    findings.push({ level: "ok", what, found: `${issuer.issuer} has a discovery document that fits` });
  } catch (error) {
    const found = `the discovery document of ${issuer.issuer} can't be used: ${reasons[0] ?? messageOf(error)}`;
    const fix = "check issuer (exactly as the provider names itself), DNS and the firewall of this machine";
    findings.push({ level: "FAIL", what, found, fix });
  }
  return findings;
}
