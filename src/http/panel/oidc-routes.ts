import { randomBytes } from "node:crypto";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { OidcAccounts } from "../../admin/oidc-accounts.ts";
import type { Registrations } from "../../admin/registrations.ts";
import type { Config } from "../../config/schema.ts";
import { passwordLogins, registrations } from "../../config/security-schema.ts";
import { AppError, type ErrorCode } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Identity } from "../../identity/authenticate.ts";
import { type ExternalLogins, loginId } from "../../identity/external-logins.ts";
import type { LoginGuard } from "../../identity/login-guard.ts";
import type { Nonces } from "../../identity/nonces.ts";
import type { OidcIssuers } from "../../identity/oidc/issuers.ts";
import type { Sessions } from "../../identity/sessions.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { accountOfRequest, originOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";
import { keepTransaction, type OidcTransaction, pageAfterLogin, takeTransaction } from "./oidc-transaction.ts";
import { setPanelCookie } from "./panel-cookie.ts";

export interface OidcRouteOptions {
  readonly issuers: OidcIssuers;
  readonly accounts: OidcAccounts;
  readonly externalLogins: Pick<ExternalLogins, "ofUser">;
  readonly sessions: Pick<Sessions, "openCookie">;
  readonly loginGuard: Pick<LoginGuard, "start">;
  readonly nonces: Nonces;
  /** Who has logged in from this browser; undefined: nobody. */
  readonly byCookie: (request: FastifyRequest) => Promise<Identity> | undefined;
  /** Ends the session of the cookie that came with a request, if it has one. */
  readonly endSession: (request: FastifyRequest) => Promise<void>;
  readonly registrations: Pick<Registrations, "isOpen">;
  readonly config: () => Pick<Config, "panel" | "oidc" | "security">;
  readonly emit: Emit;
  readonly clock: Clock;
  readonly log: Log;
}

const name = z.string().max(32);
const here = z.object({ name });
const away = z.null().describe("To where it goes on: see Location.");

const waysResponse = z.object({
  password_login: z.enum(passwordLogins).describe("security.password_login"),
  registration: z
    .enum(registrations)
    .describe("Whether one can register: security.registration, `off` where passwords don't log users in."),
  issuers: z.array(z.object({ name, title: z.string() })).describe("Identity providers: [[oidc]]."),
});

const linkedResponse = z.object({
  logins: z.array(
    z.object({
      id: z.string().describe("Names it for DELETE."),
      issuer: z.string(),
      name: z.string().nullable().describe("The name of the issuer in config.toml; null if it is not there any more."),
      sub: z.string().describe("Who you are there."),
      linked_at: z.iso.datetime(),
    }),
  ),
});

/** Below /panel/api/oidc: logins through identity providers, and the links of one's own account. */
export function registerOidcRoutes(app: FastifyInstance, options: OidcRouteOptions): void {
  const { issuers, accounts, config, clock } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ["panel"];

  routes.get(
    "/panel/api/oidc",
    {
      config: { access: "public" },
      schema: { summary: "How one can log in", tags, response: { 200: waysResponse } },
    },
    (_request, reply) => {
      const { oidc, security } = config();
      reply.header("cache-control", "no-store");
      return {
        password_login: security.password_login,
        registration: options.registrations.isOpen() ? security.registration : "off",
        issuers: oidc.map(({ name: issuer, title = issuer }) => ({ name: issuer, title })),
      };
    },
  );

  /** Begins a transaction; returns where to send the browser. */
  async function begin(
    request: FastifyRequest,
    reply: FastifyReply,
    { issuer, then, link }: Pick<OidcTransaction, "issuer" | "then" | "link">,
  ): Promise<string> {
    const { location, ...challenge } = await issuers.begin(issuer);
    const begun = Math.floor(clock.now() / 1000);
    keepTransaction(request, reply, config().panel, { issuer, ...challenge, begun, then, link });
    return location;
  }

  routes.get(
    "/panel/api/oidc/:name/start",
    {
      config: { access: "public", sheds: true },
      schema: {
        summary: "Log in through an identity provider",
        description: "Go there by a link: it leads to the provider, and from there back to a page of the panel.",
        tags,
        params: here,
        querystring: z.object({
          then: z.string().max(1000).optional().describe("A page below /panel/ to go to after the login."),
        }),
        response: { 303: away },
      },
    },
    async (request, reply) => {
      reply.header("cache-control", "no-store");
      const { name: issuer } = request.params;
      try {
        const then = pageAfterLogin(request.query.then);
        return await reply.redirect(await begin(request, reply, { issuer, then, link: null }), 303);
      } catch (error) {
        return sendBack(reply, "/panel/", codeOf(error));
      }
    },
  );

  routes.get(
    "/panel/api/oidc/:name/callback",
    {
      config: { access: "public", sheds: true },
      schema: {
        summary: "Where identity providers send browsers back",
        description: "Register this address with the provider, after `panel.public_url`.",
        tags,
        params: here,
        response: { 303: away },
      },
    },
    async (request, reply) => {
      reply.header("cache-control", "no-store");
      const { name: issuer } = request.params;
      const search = searchOf(request);
      const state = new URLSearchParams(search).get("state");
      let transaction: OidcTransaction | undefined;
      try {
        // Any page can send its visitors here with a made-up state. That proves nothing, so it costs and counts nothing.
        transaction = takeTransaction(request, reply, { panel: config().panel, issuer, state, now: clock.now() });
        if (transaction.link !== null) {
          await link(request, search, transaction, transaction.link);
          return await reply.redirect("/panel/account", 303);
        }
        const account = await accounts.enter(await arrive(request, search, transaction));
        const grant = await options.sessions.openCookie(account, originOfRequest(request));
        await options.endSession(request);
        setPanelCookie(request, reply, config().panel, grant.cookie);
        const { username: user } = account;
        options.emit({ type: "login.succeeded", ...eventOf(request), user, method: "oidc" });
        return await reply.redirect(transaction.then, 303);
      } catch (error) {
        const code = codeOf(error);
        if (code === "internal_error") options.log.error({ err: error }, "a login through an identity provider failed");
        const result = code === "login_blocked" ? "blocked" : "failure";
        const failure = { user: "", known: false, result, reason: code, method: "oidc" } as const;
        if (transaction?.link == null) options.emit({ type: "login.failed", ...eventOf(request), ...failure });
        return sendBack(reply, transaction?.link == null ? "/panel/" : "/panel/account", code);
      }
    },
  );

  const eventOf = (request: FastifyRequest) => ({ at: clock.now(), traceId: request.id, ip: request.ip });

  /** Who comes back from the issuer, once. */
  async function arrive(
    request: FastifyRequest,
    search: string,
    { issuer: asked, state, begun, ...rest }: OidcTransaction,
  ) {
    const origin = originOfRequest(request);
    // Addresses that bring invented answers have to wait, as those that guess passwords. No account is meant.
    const user = `oidc-${randomBytes(8).toString("hex")}`;
    const attempt = await options.loginGuard.start({ user, known: false, ip: origin.ip, traceId: origin.traceId });
    try {
      const { claims, ...identity } = await issuers.finish(asked, search, { ...rest, state });
      // Only what an issuer has confirmed is remembered: nobody else can fill this memory.
      if (!(await options.nonces.use(`oidc:${asked}`, state, begun))) throw new AppError("oidc_expired");
      await attempt.succeeded();
      return { issuer: issuers.config(asked), identity, claims, origin };
    } catch (error) {
      await (codeOf(error) === "oidc_failed" ? attempt.failed() : attempt.dropped());
      throw error;
    }
  }

  /** Links the login to the account that is logged in, if it is in the session that asked for it. */
  async function link(
    request: FastifyRequest,
    search: string,
    transaction: OidcTransaction,
    session: string,
  ): Promise<void> {
    const current = await options.byCookie(request);
    if (current?.sessionId !== session) throw new AppError("oidc_expired");
    await accounts.link(current.account, await arrive(request, search, transaction));
  }

  routes.post(
    "/panel/api/oidc/:name/link",
    {
      schema: {
        summary: "Link a login of an identity provider to my account",
        description: "For a browser that is logged in: go to the address in the response.",
        tags,
        params: here,
        response: {
          200: z.object({ location: z.string() }),
          403: errorSchema,
          404: errorSchema,
          503: errorSchema,
        },
      },
    },
    async (request, reply) => {
      const session = await options.byCookie(request);
      if (session?.sessionId == null || session.sessionId !== request.sessionId) {
        throw new AppError("forbidden", { message: "Only a session of the panel can link a login." });
      }
      reply.header("cache-control", "no-store");
      const { name: issuer } = request.params;
      return { location: await begin(request, reply, { issuer, then: "/panel/account", link: session.sessionId }) };
    },
  );

  routes.get(
    "/panel/api/oidc/logins",
    {
      schema: {
        summary: "Logins of identity providers that are linked to my account",
        tags,
        response: { 200: linkedResponse },
      },
    },
    async (request, reply) => {
      const linked = await options.externalLogins.ofUser(accountOfRequest(request).username);
      const named = new Map(config().oidc.map((one) => [one.issuer, one.name]));
      reply.header("cache-control", "no-store");
      return {
        logins: linked.map(({ issuer, sub, linkedAt }) => ({
          id: loginId({ issuer, sub }),
          issuer,
          sub,
          name: named.get(issuer) ?? null,
          linked_at: new Date(linkedAt).toISOString(),
        })),
      };
    },
  );

  routes.delete(
    "/panel/api/oidc/logins/:id",
    {
      schema: {
        summary: "End the link of a login to my account",
        tags,
        params: z.object({ id: z.string().max(64) }),
        response: { 204: z.null().describe("Done."), 404: errorSchema, 409: errorSchema },
      },
    },
    async (request, reply) => {
      const account = accountOfRequest(request);
      const linked = await options.externalLogins.ofUser(account.username);
      const found = linked.find((one) => loginId(one) === request.params.id);
      if (found === undefined) throw new AppError("not_found", { message: "You have no such login." });
      const { password_login: passwords } = config().security;
      if (
        linked.length === 1 &&
        (passwords === "off" || (passwords === "admins" && !account.roles.includes("admin")))
      ) {
        throw new AppError("conflict", { message: "It is the only way in to your account." });
      }
      await accounts.unlink(account, found, originOfRequest(request));
      return reply.code(204).send(null);
    },
  );
}

/** The query of a request, with its question mark. */
function searchOf({ raw: { url = "" } }: FastifyRequest): string {
  return url.includes("?") ? url.slice(url.indexOf("?")) : "";
}

/** Back to a page of the panel, which says in its words what the code means. */
function sendBack(reply: FastifyReply, page: string, code: ErrorCode): FastifyReply {
  return reply.redirect(`${page}?login_error=${code}`, 303);
}

function codeOf(error: unknown): ErrorCode {
  return error instanceof AppError ? error.code : "internal_error";
}
