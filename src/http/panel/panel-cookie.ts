import type { FastifyReply, FastifyRequest } from "fastify";
import type { Config } from "../../config/schema.ts";

type PanelConfig = Pick<Config["panel"], "public_url" | "secure_cookie" | "session_seconds">;

/**
 * What a browser keeps it under. With the prefix it takes it from this host alone, over https, for all paths: no other
 * host of the domain can plant one. Browsers take such a cookie over https, and from their own machine.
 */
const securePrefix = "__Host-";

/** Why the cookie goes without that protection: for the response to a login. */
export const plainCookieWarning =
  "This page came over plain http, so others on the network can read the session. Put the proxy behind TLS and set panel.public_url.";

/** Whether the cookie of a request is one that only https, or this machine, can carry. */
export function isSecure(
  request: FastifyRequest,
  { secure_cookie: wanted, public_url: publicUrl }: PanelConfig,
): boolean {
  if (wanted !== "auto") return wanted === "always";
  return request.protocol === "https" || publicUrl?.startsWith("https:") === true || isLoopback(request.hostname);
}

/** @param hostname of a Host header, without the port */
function isLoopback(hostname: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i.test(hostname);
}

/** The cookie of the session that the browser sent; undefined if there is none. */
export function panelCookieOf(request: FastifyRequest, config: PanelConfig): string | undefined {
  return cookieOf(request, config, "panel");
}

/** Has the browser keep the cookie as long as the session lasts. */
export function setPanelCookie(request: FastifyRequest, reply: FastifyReply, config: PanelConfig, value: string): void {
  writeCookie(request, reply, config, { name: "panel", value, maxAge: config.session_seconds });
}

/** Has the browser forget it. */
export function clearPanelCookie(request: FastifyRequest, reply: FastifyReply, config: PanelConfig): void {
  writeCookie(request, reply, config, { name: "panel", value: "", maxAge: 0 });
}

/** A cookie of the panel that the browser sent. */
export function cookieOf(request: FastifyRequest, config: PanelConfig, name: string): string | undefined {
  const wanted = `${isSecure(request, config) ? securePrefix : ""}${name}=`;
  // The plain name counts only where the other can't be kept: a neighbour could have planted it.
  for (const part of (request.headers.cookie ?? "").split(";")) {
    const pair = part.trim();
    if (pair.startsWith(wanted)) return pair.slice(wanted.length);
  }
  return undefined;
}

/** Has the browser keep a cookie of the panel for so many seconds; 0: forget it. */
export function writeCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  config: PanelConfig,
  { name, value, maxAge }: { readonly name: string; readonly value: string; readonly maxAge: number },
): void {
  const secure = isSecure(request, config);
  // Lax, not Strict: that one is missing on the way back from an identity provider.
  const rules = `; Max-Age=${maxAge}; Path=/; HttpOnly; SameSite=Lax${secure ? "; Secure" : ""}`;
  reply.header("set-cookie", `${secure ? securePrefix : ""}${name}=${value}${rules}`);
}
