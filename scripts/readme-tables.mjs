// Writes README's tables of config keys, restarts and error codes from the code, between their markers.
// Writes docs/events.md and its schema too, and docs/openapi.json. `npm run docs` writes; `npm run docs -- --check` fails where they are behind.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import "./build-if-stale.mjs";

const root = join(import.meta.dirname, "..");
const { configSchema } = await import("../dist/config/schema.js");
const { bootKeys } = await import("../dist/config/boot.js");
const { errorTable } = await import("../dist/errors.js");
const { eventDocs } = await import("./event-docs.mjs");
const { openapiDocument } = await import("./openapi-document.mjs");

function inner(schema) {
  return schema.def?.innerType === undefined ? schema : inner(schema.def.innerType);
}

function defaultOf(schema) {
  if (schema.def?.type === "default") return schema.def.defaultValue;
  if (isOneRow(schema)) return schema.parse(undefined);
  return schema.def?.innerType === undefined ? undefined : defaultOf(schema.def.innerType);
}

/** Whether an object is shown in one row, instead of one for each of its keys. */
function isOneRow(schema) {
  return schema.meta()?.row === "one";
}

function describe(schema) {
  return schema.description ?? (schema.def?.innerType === undefined ? "" : describe(schema.def.innerType));
}

function rows(schema, path) {
  const bare = inner(schema);
  if (bare.shape !== undefined && !isOneRow(schema))
    return Object.entries(bare.shape).flatMap(([key, child]) => rows(child, [...path, key]));
  const element = bare.def?.element;
  if (element !== undefined && inner(element).shape !== undefined)
    return rows(element, [...path.slice(0, -1), `[${path.at(-1)}]`]);
  const value = bare.def?.valueType;
  if (value !== undefined && inner(value).shape !== undefined) return rows(value, [...path, "NAME"]);
  const preset = defaultOf(schema);
  const shown = preset === undefined ? "" : `\`${JSON.stringify(preset)}\``;
  return [`| \`${path.join(".")}\` | ${shown} | ${describe(schema).replaceAll("|", "\\|")} |`];
}

const tables = {
  config: ["| key | default | what it does |", "|---|---|---|", ...rows(configSchema, [])],
  restart: Object.entries(bootKeys).map(
    ([section, keys]) => `- \`[${section}]\` ${keys.map((key) => `\`${key}\``).join(", ")}`,
  ),
  errors: [
    "| status | code | type | retry | message |",
    "|---|---|---|---|---|",
    ...Object.entries(errorTable).map(
      ([code, { status, type, message, retryable }]) =>
        `| ${status} | \`${code}\` | ${type} | ${retryable ? "yes" : "no"} | ${message} |`,
    ),
  ],
};

let readme = readFileSync(join(root, "README.md"), "utf8");
for (const [name, lines] of Object.entries(tables)) {
  const block = new RegExp(`(<!-- ${name}:start -->\n)[^]*?(<!-- ${name}:end -->)`);
  if (!block.test(readme)) throw new Error(`README.md has no markers for the ${name} table`);
  readme = readme.replace(block, (_all, start, end) => `${start}${lines.join("\n")}\n${end}`);
}
for (const [name, text] of Object.entries({
  "README.md": readme,
  ...eventDocs,
  "docs/openapi.json": await openapiDocument(),
})) {
  const file = join(root, name);
  const isBehind = !existsSync(file) || readFileSync(file, "utf8") !== text;
  if (isBehind && process.argv.includes("--check")) throw new Error(`${name} is behind the code: npm run docs`);
  if (isBehind) writeFileSync(file, text);
}
