import type { FastifyInstance } from "fastify";
import { AppError } from "../../errors.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Counts the bytes of a body that may be large; null if it can't be. */
    bodyHold: BodyHold | null;
  }
}

/** The bytes of one body, counted until its request is over. */
interface BodyHold {
  /** Throws AppError `concurrency_exceeded` or `proxy_overloaded` if there is no room for so many more bytes. */
  add(bytes: number): void;
}

/** Bodies declared to be no larger than this are not counted, in bytes. */
const small = 1 << 20;
/** How many bodies of the largest size one user, and all users together, may have in memory at once. */
const perUser = 4;
const together = 16;

/**
 * Bounds the memory for the bodies of running requests. Each is kept to the end of its request, since another provider
 * may have to be tried; without a bound a few users with many large bodies could use up the memory.
 * @param largest server.body_limit_bytes
 */
export function boundLargeBodies(app: FastifyInstance, largest: number): void {
  const byUser = new Map<string, number>();
  let total = 0;

  function open(user: string): BodyHold & { release(): void } {
    let held = 0;
    let released = false;
    return {
      add(bytes) {
        // Nobody waits for it any longer, and what came would be counted for ever.
        if (released) throw new AppError("bad_http");
        const own = (byUser.get(user) ?? 0) + bytes;
        if (own > perUser * largest) {
          const message = "The bodies of your running requests are too large together.";
          throw new AppError("concurrency_exceeded", { message, retryAfterSeconds: 1 });
        }
        if (total + bytes > together * largest) throw new AppError("proxy_overloaded", { retryAfterSeconds: 1 });
        byUser.set(user, own);
        total += bytes;
        held += bytes;
      },
      release() {
        released = true;
        const left = (byUser.get(user) ?? 0) - held;
        if (left > 0) byUser.set(user, left);
        else byUser.delete(user);
        total -= held;
      },
    };
  }

  app.decorateRequest("bodyHold", null);
  app.addHook("preParsing", (request, reply, payload, done) => {
    const { headers, account, routeOptions } = request;
    const declared = Number(headers["content-length"] ?? Infinity);
    const mayBeLarge = declared > small || headers["content-encoding"] !== undefined;
    if (mayBeLarge && account !== null && routeOptions.config.keepBytes === true) {
      const hold = open(account.username);
      request.bodyHold = hold;
      reply.raw.once("close", () => {
        hold.release();
      });
    }
    done(null, payload);
  });
}
