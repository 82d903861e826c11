import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Audit } from "../../admin/audit.ts";
import type { Config } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import type { CheckGuarded } from "../../identity/login/login.ts";
import { hasSecondFactor, newTotpSecret, type SecondFactors } from "../../identity/login/second-factor.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";

export interface SecondFactorRouteOptions {
  readonly secondFactors: SecondFactors;
  readonly checkGuarded: CheckGuarded;
  readonly audit: Audit;
  readonly config: () => Pick<Config, "panel">;
}

const otp = z.string().max(64);
const secret = z.string().max(64).describe("160 bits in base32, for an authenticator (TOTP, SHA-1, 6 digits, 30 s).");

/** Below /panel/api/second-factor: one's own second factor. */
export function registerSecondFactorRoutes(app: FastifyInstance, options: SecondFactorRouteOptions): void {
  const { secondFactors, checkGuarded, audit, config } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ["panel"];
  const open = { beforeSecondFactor: true };
  const path = "/panel/api/second-factor";

  routes.get(
    path,
    {
      config: open,
      schema: {
        summary: "Whether I have a second factor",
        tags,
        response: {
          200: z.object({ enabled: z.boolean(), recovery_codes_left: z.int() }),
        },
      },
    },
    (request, reply) => {
      const account = accountOfRequest(request);
      reply.header("cache-control", "no-store");
      return { enabled: hasSecondFactor(account), recovery_codes_left: account.recovery_codes?.length ?? 0 };
    },
  );

  routes.post(
    `${path}/secret`,
    {
      config: open,
      schema: {
        summary: "A secret for a new second factor",
        description: "Nothing is stored: the secret comes back with a code that proves that an authenticator has it.",
        tags,
        response: { 200: z.object({ secret, uri: z.string().describe("The same, as authenticators read it.") }) },
      },
    },
    (request, reply) => {
      reply.header("cache-control", "no-store");
      return newTotpSecret(accountOfRequest(request).username, config().panel.title);
    },
  );

  routes.post(
    path,
    {
      config: open,
      schema: {
        summary: "Set up a second factor",
        tags,
        body: z.object({ secret, otp }),
        response: {
          200: z.object({
            recovery_codes: z.array(z.string()).describe("Each is good once instead of a code. Shown only now."),
          }),
          400: errorSchema,
          403: errorSchema,
          409: errorSchema,
        },
      },
    },
    async (request, reply) => {
      const { username } = accountOfRequest(request);
      await audit.check();
      const codes = await notLoggedOut(() => secondFactors.enable(username, request.body.secret, request.body.otp));
      reply.header("cache-control", "no-store");
      await record(request, "user.second_factor_enabled");
      return { recovery_codes: [...codes] };
    },
  );

  routes.post(
    `${path}/remove`,
    {
      schema: {
        summary: "Remove my second factor",
        tags,
        body: z.object({ current_password: z.string().max(4096), otp }),
        response: {
          204: z.null().describe("Done."),
          400: errorSchema,
          403: errorSchema,
          404: errorSchema,
          429: errorSchema,
        },
      },
    },
    async (request, reply) => {
      const account = accountOfRequest(request);
      const { username: user } = account;
      if (!hasSecondFactor(account)) throw new AppError("not_found", { message: "You have no second factor." });
      const attempt = { user, known: true, ip: request.ip, traceId: request.id };
      const useCode = () => secondFactors.use(user, request.body.otp);
      const isRight = await notLoggedOut(() =>
        checkGuarded(attempt, account.password_hash, request.body.current_password, useCode),
      );
      if (!isRight) {
        throw new AppError("forbidden", { param: "current_password", message: "The current password is wrong." });
      }
      await secondFactors.remove(user);
      await record(request, "user.second_factor_removed");
      return reply.code(204).send(null);
    },
  );

  async function record(request: FastifyRequest, action: "user.second_factor_enabled" | "user.second_factor_removed") {
    const { username: user } = accountOfRequest(request);
    const actor = { by: user, ip: request.ip, traceId: request.id };
    await audit.record(actor, { action, user, before: null, after: null });
  }
}

/** A wrong code as 403: the session is valid, and a client that logs in and tries again would only fail twice. */
async function notLoggedOut<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof AppError && (error.code === "otp_invalid" || error.code === "otp_required"))
      throw new AppError(error.code, { status: 403, param: "otp", cause: error });
    throw error;
  }
}
