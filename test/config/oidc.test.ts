import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { maskConfig } from "../../src/config/masked.ts";
import { readClientSecret } from "../../src/config/oidc-secrets.ts";
import type { OidcIssuerConfig } from "../../src/config/schema.ts";
import { tempDir } from "../support/temp-dir.ts";

const panel = '[panel]\npublic_url = "https://llm.example"\n';
const issuer = '[[oidc]]\nname = "work"\nissuer = "https://id.example/realms/x"\nclient_id = "c"\n';

function only(text: string): OidcIssuerConfig {
  const [found] = parseConfig(panel + text, "test.toml").oidc;
  if (found === undefined) throw new Error("no issuer");
  return found;
}

describe("[[oidc]]", () => {
  it("needs little, and makes no users unless told", () => {
    expect(only(issuer)).toMatchObject({ create_users: "never", scopes: ["openid", "profile", "email"], roles: [] });
    expect(parseConfig("", "test.toml")).toMatchObject({ oidc: [], security: { password_login: "all" } });
  });

  it.each([
    [issuer, /panel\.public_url: expected the address/],
    [panel + issuer + issuer, /oidc\.1\.name: expected another name than oidc\.0 has.*line \d+/],
    [`${panel}${issuer}tier = "gold"`, /oidc\.0\.tier: expected a tier: .*line 7/],
    [`${panel}${issuer}scopes = ["profile"]`, /oidc\.0\.scopes: expected openid/],
    [panel + issuer.replace("https://id.example", "http://id.example"), /oidc\.0\.issuer: expected https/],
    [panel + issuer.replace("https://id.example", "https://a:b@id.example"), /oidc\.0\.issuer: expected https/],
    [`${panel}${issuer}client_secret_env = "A"\nclient_secret_file = "b"`, /client_secret_file: expected either/],
    [`${panel}${issuer}client_secret = "s3cret"`, /oidc\.0\.client_secret: /],
    [`${panel}${issuer}[[oidc.roles]]\nclaim = "a"\nvalue = "b"\nrole = "owner"`, /oidc\.0\.roles\.0\.role: .*admin/],
    [
      `${panel}${issuer}[[oidc.groups]]\nclaim = "a"\nvalue = "b"\ngroup = "g"\n[groups.g]\n`,
      /oidc\.0\.groups\.0\.group: expected a group that administrators have made/,
    ],
    [
      '[security]\npassword_login = "off"',
      /security\.password_login: expected "all" or "admins": without \[\[oidc\]\]/,
    ],
  ])("refuses %j", (text, message) => {
    expect(() => parseConfig(text, "test.toml")).toThrow(message);
    expect(() => parseConfig(text, "test.toml")).not.toThrow(/s3cret/);
  });

  it("reads the client secret where the config says, and never shows it", async () => {
    const folder = tempDir();
    const inFile = only(`${issuer}client_secret_file = "secret.txt"`);
    expect(() => readClientSecret(inFile, {}, folder)).toThrow(/^oidc\.work\.client_secret_file: .* cannot be read/);
    await writeFile(join(folder, "secret.txt"), "top secret\n");
    expect(readClientSecret(inFile, {}, folder)).toBe("top secret");
    await writeFile(join(folder, "secret.txt"), "two\nlines\n");
    expect(() => readClientSecret(inFile, {}, folder)).toThrow(/expected one line/);
    const noFile = only(`${issuer}client_secret_file = "/dev/null"`);
    expect(() => readClientSecret(noFile, {}, folder)).toThrow(/\/dev\/null is not a plain file/);
    const inEnv = only(`${issuer}client_secret_env = "WORK"`);
    expect(() => readClientSecret(inEnv, {}, folder)).toThrow("oidc.work.client_secret_env: WORK is empty");
    expect(readClientSecret(inEnv, { WORK: "abc" }, folder)).toBe("abc");
    expect(readClientSecret(only(issuer), {}, folder)).toBeUndefined();
    expect(maskConfig({ oidc: [{ client_secret: "x", client_secret_env: "WORK" }] })).toEqual({
      oidc: [{ client_secret: "***", client_secret_env: "WORK" }],
    });
  });
});
