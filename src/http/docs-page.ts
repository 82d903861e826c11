/** The parts of an OpenAPI document that the page shows. */
interface ApiDocument {
  readonly info: { readonly title: string; readonly version: string; readonly description?: string };
  readonly components?: { readonly schemas?: Readonly<Record<string, unknown>> };
  readonly paths?: Readonly<Record<string, Readonly<Record<string, Operation>> | undefined>>;
}

interface Operation {
  readonly tags?: readonly string[];
  readonly summary?: string;
  readonly description?: string;
  /** Empty if the route is public. */
  readonly security?: readonly unknown[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content?: Content };
  readonly responses?: Readonly<Record<string, { readonly description?: string; readonly content?: Content }>>;
}

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly required?: boolean;
  readonly description?: string;
  readonly schema?: unknown;
}

type Content = Readonly<Record<string, { readonly schema?: unknown }>>;

interface Route {
  readonly method: string;
  readonly path: string;
  readonly operation: Operation;
}

const style = `
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; background: #8881; padding: .6rem; border-radius: 4px; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; }
.method { display: inline-block; min-width: 4.2rem; font-weight: 600; }
.note { opacity: .7; }
`;

/** The page may load only its own style. For the Content-Security-Policy header. */
export const docsPolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const loginHelp = `<h2>How to log in</h2>
<p>Exchange your name and password for a token; then send it with every request. Programs use an API key instead
(<code>POST /auth/keys</code>), in the same place.</p>
<pre>TOKEN=$(curl -s localhost:8080/auth/login -H 'content-type: application/json' \\
  -d '{"username": "alice", "password": "..."}' | jq -r .access_token)
curl localhost:8080/v1/models -H "authorization: Bearer $TOKEN"
curl -N localhost:8080/v1/chat/completions -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \\
  -d '{"model": "deepseek-flash", "messages": [{"role": "user", "content": "Say hello."}], "stream": true}'</pre>`;

/** The document as a readable page: a single HTML text without scripts or external resources. */
export function docsPage({ info, components, paths = {} }: ApiDocument): string {
  const routes = Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item ?? {}).map(([method, operation]): Route => ({ method: method.toUpperCase(), path, operation })),
  );
  const tags = [...new Set(routes.map(tagOf))];
  const sections = tags.map((tag) => {
    const own = routes.filter((route) => tagOf(route) === tag);
    return `<h2>${escape(tag)}</h2>\n${own.map(routeHtml).join("\n")}`;
  });
  const schemas = Object.entries(components?.schemas ?? {}).map(
    ([name, schema]) =>
      `<details><summary><code>#/components/schemas/${escape(name)}</code></summary><pre>${escape(JSON.stringify(schema, undefined, 2))}</pre></details>`,
  );
  if (schemas.length > 0) sections.push(`<h2>schemas</h2>\n${schemas.join("\n")}`);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(info.title)}</title><style>${style}</style></head><body>
<h1>${escape(info.title)} ${escape(info.version)}</h1>
<p>${escape(info.description ?? "")} The same for machines: <a href="/openapi.json">/openapi.json</a>.</p>
${loginHelp}
${sections.join("\n")}
</body></html>
`;
}

function tagOf({ operation }: Route): string {
  return operation.tags?.[0] ?? "other";
}

function routeHtml({ method, path, operation }: Route): string {
  const { summary = "", description, security, parameters = [], requestBody, responses = {} } = operation;
  const access = security?.length === 0 ? ' <span class="note">(no token needed)</span>' : "";
  const body = contentHtml("Body", requestBody?.content);
  const answers = Object.entries(responses).map(([status, { description: what = "", content }]) =>
    contentHtml(`${status} ${what === "Default Response" ? "" : what}`, content, true),
  );
  return `<details><summary><code class="method">${escape(method)}</code><code>${escape(path)}</code> ${escape(summary)}${access}</summary>
${description === undefined ? "" : `<p>${escape(description)}</p>`}${parametersHtml(parameters)}${body}${answers.join("")}</details>`;
}

function parametersHtml(parameters: readonly Parameter[]): string {
  if (parameters.length === 0) return "";
  const rows = parameters.map(({ name, in: where, required = false, description = "", schema }) => {
    const cells = [`<code>${escape(name)}</code>`, escape(where), required ? "required" : "", escape(description)];
    return `<tr>${[...cells, `<code>${escape(JSON.stringify(schema ?? {}))}</code>`].map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  });
  return `<table>${rows.join("")}</table>`;
}

function contentHtml(title: string, content: Content = {}, evenEmpty = false): string {
  const kinds = Object.entries(content);
  if (kinds.length === 0) return evenEmpty ? `<p><b>${escape(title)}</b></p>` : "";
  return kinds
    .map(([type, { schema }]) => {
      const text = JSON.stringify(schema ?? {}, undefined, 2);
      return `<p><b>${escape(title)}</b> <span class="note">${escape(type)}</span></p><pre>${escape(text)}</pre>`;
    })
    .join("");
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
