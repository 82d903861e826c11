import Fastify, { type FastifyInstance } from "fastify";
import { setTimeout as sleep } from "node:timers/promises";
import type { Gateway } from "./gateway/handle-request.ts";
import { AppError } from "./errors.ts";
import { registerRegistrationRoute } from "./http/routes/register.ts";
import { registerAdminRoutes } from "./http/admin/admin-routes.ts";
import { registerEventsRoute } from "./http/admin/events-route.ts";
import { registerUsageExport } from "./http/admin/usage-export-route.ts";
import { registerUserRoutes } from "./http/admin/users-routes.ts";
import { registerAuthentication, registerSignatures } from "./http/plugins/authenticate.ts";
import { registerAddressRules } from "./http/plugins/addresses.ts";
import { registerCors } from "./http/plugins/cors.ts";
import {
  createBadUrlHandler,
  createReportRefusal,
  registerErrors,
  registerRequestCount,
} from "./http/plugins/errors.ts";
import { boundLargeBodies, registerJsonBody, watchUploads } from "./http/plugins/request-body.ts";
import { registerOpenapi, zodCompilers } from "./http/plugins/openapi.ts";
import { createPanelIdentity, registerPanel } from "./http/panel/panel.ts";
import { closeStalledReaders } from "./http/plugins/stalled-reader.ts";
import { registerPanelHeaders } from "./http/panel/panel-pages.ts";
import { createParserErrors, refuseTunnels } from "./http/plugins/parser-errors.ts";
import { readinessOf } from "./http/health-checks.ts";
import { registerRequestContext, requestIdOf } from "./http/plugins/request-context.ts";
import { registerTracing } from "./http/plugins/tracing.ts";
import { createShedding } from "./http/plugins/shed.ts";
import { registerAccountRoutes } from "./http/routes/account.ts";
import { registerCodeRoutes } from "./http/routes/codes.ts";
import { registerChatRoutes } from "./http/routes/chat.ts";
import { registerCountTokensRoutes } from "./http/routes/count-tokens.ts";
import { createGroupUsage, registerMyGroupRoutes } from "./http/routes/group-usage.ts";
import { registerKeyRoutes } from "./http/routes/keys.ts";
import { registerLoginRoute, registerPasswordRoute, registerSessionRoutes } from "./http/routes/auth.ts";
import { registerModelRoutes } from "./http/routes/models.ts";
import { registerOpsRoutes } from "./http/routes/ops.ts";
import { registerUsageRoutes } from "./http/routes/usage.ts";
import type { Account } from "./identity/account-schema.ts";
import { hasSecondFactor } from "./identity/login/second-factor.ts";
import { connectionCap, longestBacklog } from "./lib/files/open-file-limit.ts";
import { withModelInOneStep } from "./lib/request-target.ts";
import type { Policy } from "./policy.ts";
import type { Services } from "./services.ts";
import { version } from "./version.ts";

export interface Server {
  readonly app: FastifyInstance;
  /** Listens on the configured host and port; returns the URL. */
  listen(): Promise<string>;
  /**
   * Stops accepting, lets running streams finish until the deadline, then ends them. All are settled when it resolves;
   * the services are still open.
   * @param drainMs how long streams may continue
   * @param delayMs how long to serve as before first, while /healthz already responds with 503
   */
  stop(drainMs: number, delayMs?: number): Promise<void>;
}

/** The whole HTTP side, in order: the map of the app. */
export async function buildServer(services: Services): Promise<Server> {
  const { boot, policy, clock, log, emit, ledger, gateway } = services;
  let shuttingDown = false;
  let stopping = false;
  const requestMs = boot.server.request_seconds * 1000;
  const reportRefusal = createReportRefusal({ log, emit, clock });
  const cors = () => policy().cors;
  const refuseConnection = createParserErrors({ reportRefusal, cors });
  const app = Fastify({
    logger: false,
    genReqId: requestIdOf,
    requestIdHeader: false,
    bodyLimit: boot.server.body_limit_bytes,
    // Uploads are bounded by their speed instead, in watchUploads.
    requestTimeout: 0,
    keepAliveTimeout: 72_000,
    http: {
      maxHeaderSize: 16 << 10,
      // Node swaps the two timeouts if this one is the longer.
      headersTimeout: Math.min(10_000, requestMs),
      connectionsCheckingInterval: Math.min(2_000, requestMs),
      // We check it ourselves: Node would respond with an empty body.
      requireHostHeader: false,
    },
    // Uses our own IP list: fastify's treats some networks differently.
    trustProxy: (address: string) => policy().trustedProxies.has(address),
    forceCloseConnections: "idle",
    return503OnClosing: false,
    clientErrorHandler: refuseConnection,
    frameworkErrors: createBadUrlHandler({ log, reportRefusal, cors }),
    rewriteUrl: ({ url = "" }) => withModelInOneStep(url),
    schemaController: { compilersFactory: zodCompilers },
    routerOptions: { maxParamLength: 200, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true },
  });
  // Their size is bounded; beyond a number Node would drop headers without a word.
  app.server.maxHeadersCount = 0;
  // An expectation other than 100-continue may be ignored (RFC 9110, 10.1.1); Node would respond with an empty body.
  // Connections beyond the limit would take the descriptors that running requests need for their providers.
  const limitConnections = ({ config }: Policy): void => {
    const { max_connections: asked } = config.server;
    const cap = connectionCap(asked);
    app.server.maxConnections = cap;
    if (asked !== undefined && cap < asked) {
      const line = { event: "connections_capped", max_connections: asked, cap };
      log.warn(line, "server.max_connections is more than the limit of open files allows: raise `ulimit -n`");
    }
  };
  limitConnections(policy());
  services.onPolicy(limitConnections);
  app.server.on("checkExpectation", (request, response) => app.server.emit("request", request, response));
  refuseTunnels(app.server, refuseConnection);

  // First: whatever responds before the body is read, the body must end.
  watchUploads(app, { spanMs: requestMs, clock, refuse: refuseConnection });
  closeStalledReaders(app, () => policy().config.timeouts.stalled_reader_seconds * 1000);
  registerRequestContext(app);
  registerTracing(app, services.tracing, services.runningTraces);
  registerCors(app, cors);
  app.addHook("onRequest", (_request, reply, next) => {
    if (!stopping) {
      next();
      return;
    }
    reply.header("connection", "close");
    next(new AppError("shutting_down", { retryAfterSeconds: 1 }));
  });
  registerPanelHeaders(app, () => policy().config.panel.enabled);
  registerErrors(app, { log, reportRefusal, cors });
  registerRequestCount(app, { emit, clock });
  registerAddressRules(app, () => policy().addressRules);
  boundLargeBodies(app, boot.server.body_limit_bytes);
  registerJsonBody(app);
  await registerOpenapi(app, version);

  const { sessions, apiKeys, loginService } = services;
  const shedding = createShedding({
    overload: services.overload,
    emit,
    clock,
    random: Math.random,
    rules: () => policy().permitRules,
    retryAfterSeconds: () => policy().config.overload.retry_after_seconds,
  });
  shedding.beforeAuthentication(app);
  const byCookie = createPanelIdentity(services.authenticateCookie, policy);
  const lacksFactor = (account: Account): boolean =>
    policy().config.security.require_second_factor === "admins" &&
    account.roles.includes("admin") &&
    !hasSecondFactor(account);
  const checkAgain = registerAuthentication(
    app,
    services.authenticate,
    () => policy().adminAddresses,
    byCookie,
    lacksFactor,
  );
  shedding.afterAuthentication(app);
  registerSignatures(app, { nonces: services.nonces, clock });

  registerOpsRoutes(app, {
    checks: [...services.checks, { name: "shutdown", immediate: true, check: () => ({ ok: !shuttingDown }) }],
    readiness: () => readinessOf(services, shuttingDown),
    metrics: services.metrics,
    access: policy,
    clock,
  });
  registerPanel(app, { ...services, byCookie, version, usageDays: boot.usage.keep_days });
  registerLoginRoute(app, { ...loginService, clock });
  registerSessionRoutes(app, { ...loginService, sessions, emit, clock });
  registerPasswordRoute(app, { ...loginService, clock });
  const knownModels = () => policy().upstream.knownModels;
  registerKeyRoutes(app, {
    apiKeys,
    users: services.users,
    groups: services.groups,
    knownModels,
    config: () => policy().config,
    emit,
    clock,
  });
  registerChatRoutes(app, { gateway, clock, policy });
  registerCountTokensRoutes(app, services);
  registerModelRoutes(app, services);
  registerAccountRoutes(app, services);
  const { timezone } = boot.quota;
  const usage = { ledger, timezone, today: services.today, keepDays: boot.usage.keep_days };
  registerUsageRoutes(app, { ...usage, usageSums: services.usageSums });
  registerUsageExport(app, usage);
  const groupUsage = createGroupUsage(usage);
  registerMyGroupRoutes(app, { ...services, groupUsage });
  registerAdminRoutes(app, { ...services, groupUsage, knownModels });
  const endEventStreams = registerEventsRoute(app, {
    ...services,
    maxStreams: () => policy().config.events.max_streams,
    checkAgain,
  });
  registerCodeRoutes(app, services.admin);
  registerRegistrationRoute(app, services.admin.registrations);
  registerUserRoutes(app, { ...services, knownModels });

  return {
    app,
    listen() {
      const { host, port, backlog } = boot.server;
      const most = longestBacklog();
      if (most !== undefined && most < backlog)
        log.warn(
          { event: "backlog_capped", backlog, cap: most },
          "server.backlog is more than net.core.somaxconn allows",
        );
      return app.listen({ host, port, backlog }).catch((cause: unknown) => {
        throw listenError(cause, host);
      });
    },
    async stop(drainMs, delayMs = 0) {
      shuttingDown = true;
      if (delayMs > 0) await sleep(delayMs);
      stopping = true;
      services.concurrency.close();
      endEventStreams();
      const closed = app.close();
      await drain(gateway, drainMs);
      app.server.closeAllConnections();
      await closed;
    },
  };
}

/** What to do about an error of listening, by its code. */
const listenFixes: ReadonlyMap<string, string> = new Map([
  ["EADDRINUSE", "Stop what listens there, or choose another port by PORT or server.port."],
  ["EACCES", "Choose a port above 1023 by PORT or server.port, or let this user listen below."],
  ...["ENOTFOUND", "EAI_AGAIN", "EADDRNOTAVAIL", "EINVAL"].map(
    (code) =>
      [code, "Set HOST or server.host to an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0."] as const,
  ),
]);

function listenError(cause: unknown, host: string): Error {
  const message = cause instanceof Error ? cause.message : String(cause);
  const fix = cause instanceof Error && "code" in cause ? listenFixes.get(String(cause.code)) : undefined;
  const lines = [
    `cannot listen on server.host ${JSON.stringify(host)}: ${message}`,
    ...(fix === undefined ? [] : [fix]),
  ];
  return new Error(lines.join("\n"), { cause });
}

/** Waits for running requests until the deadline, then ends them. Each of them is still settled. */
async function drain(gateway: Gateway, drainMs: number): Promise<void> {
  const deadline = new Promise<"late">((resolve) => setTimeout(resolve, drainMs, "late").unref());
  if ((await Promise.race([gateway.whenIdle(), deadline])) !== "late") return;
  gateway.cutAll();
  await gateway.whenIdle();
}
