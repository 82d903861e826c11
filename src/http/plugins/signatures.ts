import type { FastifyInstance, FastifyRequest } from "fastify";
import { createSignatureCheck } from "../../identity/keys/request-signature.ts";
import type { Nonces } from "../../identity/nonces.ts";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";

interface SignaturesOptions {
  readonly nonces: Nonces;
  readonly clock: Clock;
}

const none = Buffer.alloc(0);

/** Checks the signature of requests whose API key requires one, once the body has arrived. Others cost nothing. */
export function registerSignatures(app: FastifyInstance, options: SignaturesOptions): void {
  const check = createSignatureCheck(options);
  app.addHook("preValidation", (request, _reply, next) => {
    const { apiKey, signingSecret } = request;
    if (apiKey === null || signingSecret === null) {
      next();
      return;
    }
    checkRequest(apiKey.id, signingSecret, request).then(() => {
      next();
    }, next);
  });

  async function checkRequest(keyId: string, secret: string, request: FastifyRequest): Promise<void> {
    await check(keyId, secret, {
      method: request.method,
      target: request.originalUrl,
      body: request.bodyBytes ?? none,
      timestamp: header(request, "x-signature-timestamp"),
      nonce: header(request, "x-signature-nonce"),
      signature: header(request, "x-signature"),
    });
  }
}

function header(request: FastifyRequest, name: string): string {
  const value = request.headers[name];
  if (typeof value === "string") return value;
  throw new AppError("signature_invalid", { message: `This API key signs its requests: ${name} is missing.` });
}
