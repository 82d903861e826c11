import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Account } from "../../accounts/account-schema.ts";
import type { AccessClaims } from "../../accounts/claims.ts";
import { AppError } from "../../errors.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Who may use the route; absent: users with a token. */
    access?: "public" | "user";
  }
}

interface AccessOptions {
  readonly verifyToken: (token: string) => AccessClaims;
  /** The account behind claims, as it is now. Throws AppError. */
  readonly accountOf: (claims: AccessClaims) => Account;
}

/**
 * Every route needs a token unless it says `access: "public"`: whoever forgets to say anything has built a closed
 * door. Runs before the body is read.
 */
export function registerAccess(app: FastifyInstance, { verifyToken, accountOf }: AccessOptions): void {
  app.addHook("onRequest", (request, _reply, next) => {
    // A path that leads nowhere says so to anyone; there is nothing behind it.
    if (request.is404 || request.routeOptions.config.access === "public") {
      next();
      return;
    }
    try {
      request.account = accountOf(verifyToken(bearerOf(request)));
      next();
    } catch (error) {
      next(error instanceof Error ? error : new Error(String(error)));
    }
  });
}

/** The account of a request that has passed the access check. */
export function accountOfRequest(request: FastifyRequest): Account {
  if (request.account === null) throw new AppError("missing_token");
  return request.account;
}

function bearerOf(request: FastifyRequest): string {
  const header = request.headers.authorization;
  if (header === undefined) throw new AppError("missing_token");
  if (header.slice(0, 7).toLowerCase() !== "bearer ") throw new AppError("missing_token");
  const token = header.slice(7).trim();
  if (token === "") throw new AppError("missing_token");
  return token;
}
