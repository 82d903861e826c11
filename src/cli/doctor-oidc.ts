import type { OidcIssuerConfig } from "../config/schema.ts";
import { readClientSecret } from "../config/oidc-secrets.ts";
import { discover, DiscoveryError } from "../identity/oidc/discovery.ts";
import { type DoctorCall, type Finding, messageOf } from "./doctor-events.ts";

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
  try {
    await discover(issuer.issuer, issuer.client_id);
    findings.push({ level: "ok", what, found: `${issuer.issuer} has a discovery document that fits` });
  } catch (error) {
    if (!(error instanceof DiscoveryError)) throw error;
    findings.push({ level: "FAIL", what, found: error.message, fix: error.fix });
  }
  return findings;
}
