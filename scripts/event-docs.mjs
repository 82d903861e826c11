// docs/events.md and docs/events.schema.json, made of the catalogue of events. `npm run docs` writes them.
import { format } from "prettier";
import { z } from "zod";

const { catalogue } = await import("../dist/events/catalogue.js");
const { envelopeFields, payloads } = await import("../dist/events/payloads.js");

/** What zod makes, for readers: they have to ignore fields that they don't know. */
function schemaOf(schema, io = "output") {
  const { $schema: _draft, ...rest } = z.toJSONSchema(schema, {
    io,
    override: ({ jsonSchema }) => {
      delete jsonSchema.additionalProperties;
      delete jsonSchema.readOnly;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
    },
  });
  return rest;
}

const types = Object.keys(catalogue);
const envelope = z.object(envelopeFields);

function eventSchema(type) {
  const known = {
    type: { const: type },
    version: { const: payloads[type].version },
    data: { $ref: `#/$defs/${type}` },
  };
  return { allOf: [{ $ref: "#/$defs/envelope" }, { type: "object", properties: known }] };
}

const schema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  $id: "docs/events.schema.json",
  title: "Events of the proxy",
  description: "The envelope of an event; `$defs` has it, and the payload (`data`) of each type.",
  oneOf: types.map(eventSchema),
  $defs: {
    envelope: schemaOf(envelope),
    ...Object.fromEntries(types.map((type) => [type, schemaOf(payloads[type].data)])),
  },
};

function typeText(field) {
  if (field.enum !== undefined) return field.enum.map((value) => `\`${JSON.stringify(value)}\``).join(", ");
  if (field.anyOf !== undefined) return field.anyOf.map(typeText).join(" or ");
  if (field.type === "array") return `array of ${typeText(field.items)}`;
  return [field.type ?? "any"].flat().join(" or ");
}

function table({ properties = {} }) {
  const rows = Object.entries(properties).map(
    ([name, field]) => `| \`${name}\` | ${typeText(field)} | ${(field.description ?? "").replaceAll("|", "\\|")} |`,
  );
  return rows.length === 0 ? ["No fields of its own."] : ["| field | type | what it is |", "|---|---|---|", ...rows];
}

const alertWords = { by_default: "yes", if_named: "if `alerts.events` names it", never: "no" };

function section(type) {
  const { alert, behaviour, log } = catalogue[type];
  const goes = [
    `version ${payloads[type].version}`,
    `log: ${log === null ? "no" : log.level}`,
    `behaviour log: ${behaviour ? "yes" : "no"}`,
    `alert: ${alertWords[alert]}`,
  ];
  return ["", `### ${type}`, "", `${goes.join(" · ")}`, "", ...table(schema.$defs[type])];
}

const markdown = `# Events

<!-- Made by npm run docs of src/events/catalogue.ts and src/events/payloads.ts. -->

Whatever may matter outside a request is an event: recorded once, with one id, and handed to every consumer in the same
order. None contains a prompt, a response, a password, a token or a key. [events.schema.json](events.schema.json) is
the same as JSON Schema; \`GET /admin/events\` shows events as they happen.

## The envelope

${table(schema.$defs.envelope).join("\n")}

A consumer may get an event more than once, for example after a crash: \`id\` tells. Ids sort by the time at which the
process emitted the events; \`time\` is when it happened, and a failed login has the time of its arrival.

## As CloudEvents

On the wires of brokers, an event has the attributes of CloudEvents 1.0: \`specversion\`, \`id\`, \`source\`
(\`/deepseek-proxy/NODE\`), \`type\` (\`deepseek-proxy.TYPE\`), \`subject\` (the user), \`time\`, \`datacontenttype\`,
\`dataschema\`, and as extensions \`dataversion\`, \`node\`, \`requestid\`, \`traceid\`, \`user\`, \`group\`, \`keyid\` and
\`address\`. What an event doesn't have is absent. Its data is \`data\`.

## When events change

- New types and new fields may come with any release: ignore those that you don't know. The version stays.
- A field that goes, is renamed, or changes its type, unit or meaning raises the version of its type. CHANGELOG says so
  under "Changed", and for one release before under "Deprecated".
- A type is never used again for something else.

## Types
${types.flatMap(section).join("\n")}
`;

/** Texts of files, by their path. */
export const eventDocs = {
  "docs/events.md": markdown,
  "docs/events.schema.json": await format(JSON.stringify(schema), { parser: "json", printWidth: 120 }),
};
