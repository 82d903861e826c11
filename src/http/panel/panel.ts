import { fileURLToPath } from "node:url";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { AuthenticateCookie, Identity } from "../../identity/authenticate.ts";
import type { IdentityServices } from "../../identity/create-identity.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Policy } from "../../policy.ts";
import { type OidcRouteOptions, registerOidcRoutes } from "./oidc-routes.ts";
import { panelCookieOf } from "./panel-cookie.ts";
import { createPanelFiles } from "./panel-files.ts";
import { registerPanelPages } from "./panel-pages.ts";
import { createSessionEnd, type PanelSessionOptions, registerPanelSessionRoutes } from "./panel-session-routes.ts";
import { registerSecondFactorRoutes, type SecondFactorRouteOptions } from "./second-factor-routes.ts";
import { checkSameOrigin } from "./same-origin.ts";

/** Where `npm run build` puts the panel: as far from here in src/ as in dist/. */
const builtPanel = fileURLToPath(new URL("../../../dist/panel/", import.meta.url));

/** The identity of a request by the panel's cookie, which counts for every route that an access token is good for. */
export function createPanelIdentity(authenticate: AuthenticateCookie, policy: () => Policy) {
  return (request: FastifyRequest): Promise<Identity> | undefined => {
    const { panel } = policy().config;
    if (!panel.enabled) return undefined;
    const cookie = panelCookieOf(request, panel);
    if (cookie === undefined) return undefined;
    checkSameOrigin(request, panel.public_url);
    return authenticate(cookie, request.ip);
  };
}

interface PanelOptions
  extends
    Pick<PanelSessionOptions, "groups" | "version" | "emit" | "usageDays">,
    Pick<SecondFactorRouteOptions, "secondFactors" | "checkGuarded" | "audit">,
    Pick<OidcRouteOptions, "externalLogins" | "loginGuard" | "nonces" | "byCookie" | "log"> {
  readonly sessions: PanelSessionOptions["sessions"] & OidcRouteOptions["sessions"];
  readonly admin: { readonly registrations: OidcRouteOptions["registrations"] };
  readonly oidcIssuers: OidcRouteOptions["issuers"];
  readonly oidcAccounts: OidcRouteOptions["accounts"];
  readonly loginService: IdentityServices["loginService"];
  readonly policy: () => Policy;
  readonly clock: Clock;
}

/** Everything below /panel/. */
export function registerPanel(app: FastifyInstance, options: PanelOptions): void {
  const { policy, clock } = options;
  registerPanelPages(
    app,
    createPanelFiles(builtPanel, () => clock.monotonic()),
  );
  registerPanelSessionRoutes(app, {
    ...options,
    ...options.loginService,
    config: () => policy().config,
    isSimulated: () => policy().simulated,
    mayAdminister: (ip) => policy().adminAddresses.has(ip),
  });
  registerSecondFactorRoutes(app, { ...options, config: () => policy().config });
  registerOidcRoutes(app, {
    ...options,
    issuers: options.oidcIssuers,
    accounts: options.oidcAccounts,
    registrations: options.admin.registrations,
    endSession: createSessionEnd({ ...options, config: () => policy().config }),
    config: () => policy().config,
  });
}
