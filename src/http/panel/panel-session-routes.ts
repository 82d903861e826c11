import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Config } from "../../config/schema.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Groups } from "../../identity/groups.ts";
import type { PasswordChanges } from "../../identity/login/change-password.ts";
import type { Logins } from "../../identity/login/login.ts";
import type { CookieGrant, Sessions } from "../../identity/sessions.ts";
import type { Clock } from "../../lib/clock.ts";
import { accountOfRequest, originOfRequest } from "../plugins/authenticate.ts";
import { loginBody, passwordBody } from "../schemas/auth.ts";
import { errorSchema } from "../schemas/errors.ts";
import { clearPanelCookie, isSecure, panelCookieOf, plainCookieWarning, setPanelCookie } from "./panel-cookie.ts";
import { checkLoginOrigin, checkSameOrigin } from "./same-origin.ts";

const rights = ["use", "audit", "operate"] as const;

const loginResponse = z.object({
  user: z.string(),
  must_change_password: z
    .boolean()
    .describe("Whether the password is a one-time password: everything but setting another is refused until then."),
  warning: z.string().optional().describe("Why the session is not as safe as it could be."),
});

const meResponse = z.object({
  user: z.string(),
  roles: z.array(z.string()),
  tier: z.string(),
  groups: z.array(z.string()).describe("Groups of which the user is a member."),
  group_owner_of: z.array(z.string()).describe("Groups whose usage the user sees."),
  must_change_password: z.boolean(),
  simulated: z.boolean().describe("Whether no provider has a key, and a simulator answers."),
  title: z.string().describe("panel.title"),
  timezone: z.string().describe("quota.timezone, in which days and months begin."),
  usage_days: z.int().describe("usage.keep_days: reports can't ask for more days."),
  version: z.string(),
  may: z
    .array(z.enum(rights))
    .describe("use: the user's own account and models; audit: read /admin; operate: change it. From this address."),
});

export interface PanelSessionOptions {
  readonly loginWithCookie: Logins["loginWithCookie"];
  readonly changePasswordWithCookie: PasswordChanges["changePasswordWithCookie"];
  readonly sessions: Pick<Sessions, "ofCookie" | "end">;
  readonly groups: Pick<Groups, "list" | "ofUser">;
  readonly config: () => Pick<Config, "panel" | "quota">;
  readonly isSimulated: () => boolean;
  /** usage.keep_days */
  readonly usageDays: number;
  readonly mayAdminister: (ip: string) => boolean;
  readonly version: string;
  readonly emit: Emit;
  readonly clock: Clock;
}

/** Creates what ends the session of the cookie that came with a request, if it has one. */
export function createSessionEnd(options: Pick<PanelSessionOptions, "sessions" | "config" | "emit" | "clock">) {
  const { sessions, config, emit, clock } = options;
  return async (request: FastifyRequest): Promise<void> => {
    const cookie = panelCookieOf(request, config().panel);
    const session = cookie === undefined ? undefined : await sessions.ofCookie(cookie);
    if (session === undefined) return;
    const { id: subject, user } = session;
    await sessions.end(user, subject);
    emit({ type: "session.ended", at: clock.now(), traceId: request.id, ip: request.ip, user, subject });
  };
}

/** POST /panel/api/login, /logout and /password, GET /panel/api/me: the session of a browser, in a cookie. */
export function registerPanelSessionRoutes(app: FastifyInstance, options: PanelSessionOptions): void {
  const { groups, config } = options;
  const endSession = createSessionEnd(options);
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ["panel"];

  function begin(request: FastifyRequest, reply: FastifyReply, { account, cookie }: CookieGrant) {
    const { panel } = config();
    setPanelCookie(request, reply, panel, cookie);
    reply.header("cache-control", "no-store");
    return {
      user: account.username,
      must_change_password: account.must_change_password === true,
      ...(isSecure(request, panel) ? {} : { warning: plainCookieWarning }),
    };
  }

  routes.post(
    "/panel/api/login",
    {
      config: { access: "public", sheds: true },
      // Before the body is read.
      onRequest: (request, _reply, next) => {
        checkLoginOrigin(request, config().panel.public_url);
        next();
      },
      schema: {
        summary: "Log in to the panel",
        description: "Starts a session whose opaque cookie (`__Host-panel`) stands for an access token in a browser.",
        tags,
        body: loginBody,
        response: { 200: loginResponse, 400: errorSchema, 401: errorSchema, 403: errorSchema, 429: errorSchema },
      },
    },
    async (request, reply) => {
      const { username, password, otp } = request.body;
      request.reported = true;
      const grant = await options.loginWithCookie({ username, password, otp, origin: originOfRequest(request) });
      await endSession(request);
      return begin(request, reply, grant);
    },
  );

  routes.post(
    "/panel/api/logout",
    {
      config: { access: "public" },
      onRequest: (request, _reply, next) => {
        checkSameOrigin(request, config().panel.public_url);
        next();
      },
      schema: {
        summary: "End the panel's session",
        tags,
        response: { 204: z.null().describe("Done, or there was none."), 403: errorSchema },
      },
    },
    async (request, reply) => {
      await endSession(request);
      clearPanelCookie(request, reply, config().panel);
      return reply.code(204).send(null);
    },
  );

  routes.post(
    "/panel/api/password",
    {
      config: { beforePasswordChange: true },
      schema: {
        summary: "Change my password, and go on in a new session of the panel",
        tags,
        body: passwordBody,
        response: { 200: loginResponse, 400: errorSchema, 403: errorSchema, 429: errorSchema },
      },
    },
    async (request, reply) => {
      const { current_password: currentPassword, new_password: newPassword } = request.body;
      const change = { account: accountOfRequest(request), currentPassword, newPassword };
      const grant = await options.changePasswordWithCookie({ ...change, origin: originOfRequest(request) });
      return begin(request, reply, grant);
    },
  );

  routes.get(
    "/panel/api/me",
    {
      config: { beforePasswordChange: true },
      schema: { summary: "Who I am, and what I may do", tags, response: { 200: meResponse } },
    },
    async (request, reply) => {
      const { username, roles, quota_tier: tier, must_change_password: must = false } = accountOfRequest(request);
      const { panel, quota } = config();
      const audits = options.mayAdminister(request.ip) && (roles.includes("admin") || roles.includes("auditor"));
      const may: (typeof rights)[number][] = ["use"];
      if (audits) may.push("audit");
      if (audits && roles.includes("admin")) may.push("operate");
      const owned = (await groups.list()).filter(({ owners }) => owners.includes(username));
      reply.header("cache-control", "no-store");
      return {
        user: username,
        roles: [...roles],
        tier,
        groups: (await groups.ofUser(username)).map(({ name }) => name),
        group_owner_of: owned.map(({ name }) => name),
        must_change_password: must,
        simulated: options.isSimulated(),
        title: panel.title,
        timezone: quota.timezone,
        usage_days: options.usageDays,
        version: options.version,
        may,
      };
    },
  );
}
