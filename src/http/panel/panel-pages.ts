import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { AppError } from "../../errors.ts";
import { routedPath } from "../../lib/request-target.ts";
import { isFilePath, type PanelFile, type PanelFiles } from "./panel-files.ts";

/** No inline code or style, no other origin, no frame around it, and no text that becomes HTML. */
const contentPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "font-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

const securityHeaders = {
  "content-security-policy": contentPolicy,
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
} as const;

/** Shown while the panel has not been built. */
const missingPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The panel is not built</title></head><body>
<h1>The panel is not built</h1>
<p>Run <code>npm run build</code> in the proxy's folder, then load this page again. No restart is needed.</p>
<p lang="zh">面板尚未构建：请在代理目录中运行 <code>npm run build</code>，然后刷新本页，无需重启。</p>
</body></html>
`;

/**
 * Adds the headers that protect the panel to every response below /panel, and at /, errors included: register it before
 * anything that may refuse a request.
 *
 * @param isEnabled panel.enabled
 */
export function registerPanelHeaders(app: FastifyInstance, isEnabled: () => boolean): void {
  app.addHook("onRequest", (request, reply, next) => {
    if (!/^\/(?:panel(?:\/|$)|$)/i.test(routedPath(request.raw.url ?? ""))) {
      next();
      return;
    }
    reply.headers(securityHeaders);
    if (isEnabled()) next();
    else next(new AppError("not_found", { message: "The panel is switched off (panel.enabled)." }));
  });
}

/**
 * GET /panel/: the built panel. Every path that names no file is one of its pages. GET / leads there: people open it
 * first, and some clients ask it whether the server is up.
 *
 * @param files those of the built panel
 */
export function registerPanelPages(app: FastifyInstance, files: PanelFiles): void {
  const open = { config: { access: "public" }, schema: { hide: true } } as const;
  app.get("/", open, (_request, reply) => reply.redirect("/panel/"));
  app.get("/panel", open, (request, reply) =>
    /^[^?]*\/(\?|$)/.test(request.raw.url ?? "") ? sendPage(request, reply) : reply.redirect("/panel/", 308),
  );
  const pages = { ...open, config: { ...open.config, refuses: isCall } };
  app.get<{ Params: { "*": string } }>("/panel/*", pages, async (request, reply) => {
    const path = request.params["*"];
    if (isCall(request)) throw new AppError("not_found");
    if (!isFilePath(path) || path === "index.html") return sendPage(request, reply);
    const file = await files.get(path);
    if (file === undefined) throw new AppError("not_found");
    return send(request, reply, file);
  });

  async function sendPage(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const page = await files.get("index.html");
    if (page !== undefined) return send(request, reply, page);
    return reply.code(503).type("text/html; charset=utf-8").header("cache-control", "no-store").send(missingPage);
  }
}

/** A call of the API that does not exist gets an error, not a page. */
function isCall({ raw: { url = "" } }: FastifyRequest): boolean {
  return routedPath(url).startsWith("/panel/api/");
}

function send(request: FastifyRequest, reply: FastifyReply, file: PanelFile): FastifyReply {
  const cacheControl = file.isImmutable ? "public, max-age=31536000, immutable" : "no-cache";
  reply.headers({ "cache-control": cacheControl, etag: file.etag, vary: "accept-encoding" });
  if (tagsOf(request.headers["if-none-match"]).includes(file.etag)) return reply.code(304).send();
  reply.type(file.type);
  const accepted = codingsOf(request.headers["accept-encoding"]);
  for (const coding of ["br", "gzip"] as const) {
    const { [coding]: body } = file;
    if (body !== undefined && accepted.has(coding)) return reply.header("content-encoding", coding).send(body);
  }
  return reply.send(file.body);
}

function tagsOf(header = ""): readonly string[] {
  return header.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
}

/** The codings that a client takes: named, and not with a weight of zero. */
function codingsOf(header: string | string[] = ""): ReadonlySet<string> {
  const codings = String(header)
    .toLowerCase()
    .split(",")
    .map((one) => one.split(";").map((part) => part.trim()));
  return new Set(codings.filter(([, q = ""]) => !/^q=0(\.0*)?$/.test(q)).map(([name = ""]) => name));
}
