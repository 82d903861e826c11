import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { clientSecret, createTestBrowser, startIssuer, type TestBrowser, type TestIssuer } from "./oidc-issuer.ts";
import { alicePassword, startProxy, userFile, type RunningProxy } from "./start-proxy.ts";

export const rootPassword = "roots long password";

/** Rules of an issuer by which whoever comes gets an account. */
export const always = 'create_users = "always"\n';

export interface OidcSetup {
  readonly rules?: string;
  readonly config?: string;
  readonly issuer?: TestIssuer;
}

/** An identity provider `work` and a proxy that knows it, with users alice and root. */
export async function setUpOidc({ rules = "", config = "", issuer: given }: OidcSetup = {}) {
  const issuer = given ?? (await startIssuer());
  const configOf = (publicUrl: string, more = rules): string =>
    `[panel]\npublic_url = "${publicUrl}"\n${config}\n[[oidc]]\nname = "work"\ntitle = "Our company"\nissuer = "${issuer.url}"\nclient_id = "proxy"\nclient_secret_env = "WORK_SECRET"\n${more}\n`;
  const proxy = await startProxy({
    config: configOf("http://127.0.0.1:1"),
    configFile: true,
    env: { WORK_SECRET: clientSecret },
    users: {
      alice: userFile("alice", alicePassword),
      root: userFile("root", rootPassword, 'roles = ["admin"]\n'),
    },
  });
  onTestFinished(() => proxy.dispose());
  const reload = async (more?: string): Promise<void> => {
    await writeFile(join(proxy.folder, "config.toml"), proxy.configText(configOf(proxy.url, more)));
    await proxy.services.reload("test");
    expect(proxy.services.reloader.status().invalid).toBeNull();
  };
  await reload();
  issuer.open(`${proxy.url}/panel/api/oidc/work/callback`);
  return { issuer, proxy, reload };
}

export const start = (proxy: RunningProxy, then = ""): string =>
  `${proxy.url}/panel/api/oidc/work/start${then === "" ? "" : `?then=${encodeURIComponent(then)}`}`;

export async function logIn(proxy: RunningProxy, login: string, browser = createTestBrowser()) {
  const { url } = await browser.go(start(proxy), { login });
  return { browser, path: url.slice(proxy.url.length), me: await meOf(proxy, browser) };
}

export async function meOf(proxy: RunningProxy, browser: TestBrowser) {
  const response = await fetch(`${proxy.url}/panel/api/me`, { headers: { cookie: browser.header(proxy.url) } });
  return (await response.json()) as { user?: string; roles?: readonly string[]; groups?: readonly string[] };
}
