import type { IncomingHttpHeaders } from "node:http";
import { messages } from "../gateway/formats/messages.ts";
import { errorBody, type AppError } from "../errors.ts";
import { routedPath } from "../lib/request-target.ts";

/** The headers that reveal a client's SDK family. */
export type FamilyHeaders = Pick<IncomingHttpHeaders, "origin"> & { readonly "anthropic-version"?: unknown };

const anthropicPath = /^\/(anthropic|v1\/messages)(\/|$)/;
const modelsPath = /^(\/v1)?\/models(\/|$)/;

/**
 * Whether a client expects Anthropic's formats: determined by the path and, for the models, which both SDK families
 * request at the same path, by the header that all Anthropic clients send.
 */
export function speaksAnthropic(target: string, headers: FamilyHeaders): boolean {
  const path = routedPath(target);
  if (anthropicPath.test(path)) return true;
  return headers["anthropic-version"] !== undefined && modelsPath.test(path);
}

/** The error body in the format that the client of a request expects. */
export function errorBodyFor(target: string, headers: FamilyHeaders): (error: AppError, traceId: string) => object {
  return speaksAnthropic(target, headers) ? messages.errorBody : errorBody;
}
