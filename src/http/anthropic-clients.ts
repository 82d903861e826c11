import type { IncomingHttpHeaders } from "node:http";
import { messages } from "../gateway/formats/messages.ts";
import { errorBody, type AppError } from "../errors.ts";
import { routedPath } from "../lib/request-target.ts";

/** What tells a client's family, of its headers. */
export type FamilyHeaders = Pick<IncomingHttpHeaders, "origin"> & { readonly "anthropic-version"?: unknown };

const anthropicPath = /^\/(anthropic|v1\/messages)(\/|$)/;
const modelsPath = /^(\/v1)?\/models(\/|$)/;

/**
 * Whether a client expects Anthropic's shapes: by where it asks, and for the models, which both families of SDKs look
 * for at one address, by the header that all of Anthropic's programs send.
 */
export function speaksAnthropic(target: string, headers: FamilyHeaders): boolean {
  const path = routedPath(target);
  if (anthropicPath.test(path)) return true;
  return headers["anthropic-version"] !== undefined && modelsPath.test(path);
}

/** The body of an error, in the shape that the client of a request expects. */
export function errorBodyFor(target: string, headers: FamilyHeaders): (error: AppError, traceId: string) => object {
  return speaksAnthropic(target, headers) ? messages.errorBody : errorBody;
}
