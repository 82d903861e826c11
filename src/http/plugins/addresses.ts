import type { FastifyInstance } from "fastify";
import { AppError } from "../../errors.ts";
import type { AddressRules } from "../../lib/ip-list.ts";

/** Routes that probes and collectors ask; /metrics and the details of /healthz have a list of their own. */
const exempt: ReadonlySet<string | undefined> = new Set(["/livez", "/readyz", "/healthz", "/metrics"]);

/**
 * Refuses requests from addresses that may not use the proxy, before anything else is looked at.
 * @param rules those in force
 */
export function registerAddressRules(app: FastifyInstance, rules: () => AddressRules): void {
  app.addHook("onRequest", (request, _reply, next) => {
    if (rules().allows(request.ip) || exempt.has(request.routeOptions.url)) next();
    else next(new AppError("address_not_allowed", { message: "This address may not use this proxy." }));
  });
}
