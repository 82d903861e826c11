// Writes the tables of config keys, restarts and error codes in docs/ from the code, between their markers, and as a
// whole docs/events.md, its schema and docs/openapi.json.
//
//   npm run docs               writes them
//   npm run docs -- --check    fails where one is behind the code
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

/** The file with these tables. */
function withTables(file, names) {
  let text = readFileSync(join(root, file), "utf8");
  for (const name of names) {
    const block = new RegExp(`(<!-- ${name}:start -->\n)[^]*?(<!-- ${name}:end -->)`);
    if (!block.test(text)) throw new Error(`${file} has no markers for the ${name} table`);
    text = text.replace(block, (_all, start, end) => `${start}${tables[name].join("\n")}\n${end}`);
  }
  return text;
}

for (const [name, text] of Object.entries({
  "docs/configuration.md": withTables("docs/configuration.md", ["config", "restart"]),
  "docs/errors.md": withTables("docs/errors.md", ["errors"]),
  ...eventDocs,
  "docs/openapi.json": await openapiDocument(),
})) {
  const file = join(root, name);
  const isBehind = !existsSync(file) || readFileSync(file, "utf8") !== text;
  if (isBehind && process.argv.includes("--check")) throw new Error(`${name} is behind the code: npm run docs`);
  if (isBehind) writeFileSync(file, text);
}
