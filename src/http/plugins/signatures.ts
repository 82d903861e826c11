import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ApiKey } from "../../identity/keys/api-key.ts";
import { createSignatureCheck } from "../../identity/keys/request-signature.ts";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";

interface SignaturesOptions {
  /** The secret that signs a key's requests. */
  readonly secretOf: (key: ApiKey) => string;
  readonly clock: Clock;
}

const none = Buffer.alloc(0);

/** Checks the signature of requests whose API key requires one, once the body has arrived. Others cost nothing. */
export function registerSignatures(app: FastifyInstance, { secretOf, clock }: SignaturesOptions): void {
  const check = createSignatureCheck(clock);
  app.addHook("preValidation", (request, _reply, next) => {
    const { apiKey } = request;
    if (apiKey?.signed !== true) {
      next();
      return;
    }
    try {
      check(apiKey.id, secretOf(apiKey), {
        method: request.method,
        target: request.originalUrl,
        body: request.bodyBytes ?? none,
        timestamp: header(request, "x-signature-timestamp"),
        nonce: header(request, "x-signature-nonce"),
        signature: header(request, "x-signature"),
      });
      next();
    } catch (error) {
      next(error instanceof Error ? error : new Error(String(error)));
    }
  });
}

function header(request: FastifyRequest, name: string): string {
  const value = request.headers[name];
  if (typeof value === "string") return value;
  throw new AppError("signature_invalid", { message: `This API key signs its requests: ${name} is missing.` });
}
