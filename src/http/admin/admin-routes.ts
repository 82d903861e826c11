import type { FastifyInstance } from "fastify";
import type { Admin } from "../../admin/open-admin.ts";
import { registerCredentialsRoutes } from "./credentials-routes.ts";
import { registerActivityRoutes, type ActivityRouteOptions } from "./activity-routes.ts";
import { registerAlertsRoute } from "./alerts-route.ts";
import { registerConfigRoutes } from "./config-route.ts";
import { registerGroupRoutes, type GroupRouteOptions } from "./groups-routes.ts";
import { registerLimitsRoutes } from "./limits-routes.ts";
import { registerNodesRoute } from "./nodes-route.ts";
import { type OverviewOptions, registerOverviewRoute } from "./overview-route.ts";
import { registerProviderRoutes } from "./providers-routes.ts";
import { registerQuotaRoutes } from "./quota-routes.ts";
import { registerRequestsRoute, type RequestsRouteOptions } from "./requests-route.ts";
import { registerRiskRoutes } from "./risk-routes.ts";

interface AdminRouteOptions
  extends
    ActivityRouteOptions,
    RequestsRouteOptions,
    Omit<OverviewOptions, "isShared" | "isSimulated">,
    Omit<GroupRouteOptions, "groups" | "quota"> {
  readonly policy: () => { readonly simulated: boolean };
  readonly admin: Admin;
  /** undefined: the state is this process's alone. */
  readonly fleet: { readonly nodes: Parameters<typeof registerNodesRoute>[1] } | undefined;
}

/** All of /admin except users and usage. */
export function registerAdminRoutes(app: FastifyInstance, options: AdminRouteOptions): void {
  const { admin } = options;
  registerQuotaRoutes(app, admin);
  registerGroupRoutes(app, { ...options, groups: admin.groups, quota: admin.quota });
  registerCredentialsRoutes(app, admin.credentials);
  registerActivityRoutes(app, options);
  registerOverviewRoute(app, {
    ...options,
    isShared: options.fleet !== undefined,
    isSimulated: () => options.policy().simulated,
  });
  registerRequestsRoute(app, options);
  registerAlertsRoute(app, admin.alerts);
  registerProviderRoutes(app, admin.providers);
  registerLimitsRoutes(app, admin.rates);
  registerConfigRoutes(app, admin.config);
  registerRiskRoutes(app, admin.risk);
  registerNodesRoute(app, options.fleet?.nodes);
}
