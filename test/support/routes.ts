import type { FastifyInstance } from "fastify";

export interface Route {
  readonly method: string;
  /** With its parameters as `:name`. */
  readonly path: string;
}

/** All routes of an app, read off fastify's drawing: a line ends in `path (METHOD, METHOD)`, below what it continues. */
export function routesOf(app: Pick<FastifyInstance, "printRoutes">): readonly Route[] {
  const parents: string[] = [];
  return app
    .printRoutes({ commonPrefix: false })
    .split("\n")
    .filter((line) => line.trim() !== "")
    .flatMap((line) => {
      const [, indent = "", part = "", methods = ""] = /^([│├└─\s]*)(\S*)(?: \((.*)\))?$/.exec(line) ?? [];
      const depth = indent.length / 4;
      // The drawing lacks the slash before a wildcard.
      const path = (parents[depth - 1] ?? "") + (part === "*" ? "/*" : part);
      parents[depth] = path;
      return methods === "" ? [] : methods.split(", ").map((method) => ({ method, path }));
    });
}
