import { TomlDate } from "smol-toml";
import { z } from "zod";
import {
  grantsSchema,
  isoInstant,
  limitsSchema,
  modelGlob,
  network,
  note,
  plainName,
  type GrantConfig,
} from "../config/schema.ts";
import { isoOfInstant, isTomlTime } from "../lib/wall-clock.ts";
import { metricNames } from "../quota/metrics.ts";
import { periodNames } from "../quota/periods.ts";
import { roles } from "./roles.ts";
import { isUserName } from "./user-name.ts";

/** An operator's own notes on a user: any TOML. Integers above 2^53 are bigints. */
export interface Metadata {
  readonly [key: string]: MetadataValue;
}
type MetadataValue = string | number | bigint | boolean | Date | readonly MetadataValue[] | Metadata;

const passwordHash =
  /^\$argon2id\$v=19\$m=(\d{1,10}),t=(\d{1,10}),p=(\d{1,3})\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}$/;
/** The largest memory of a hash, in KiB, and its largest product with the passes: a login must not take seconds. */
const maxHashMemory = 1 << 20;
const maxHashWork = 1 << 22;

/** Whether a login can be checked against a hash: argon2 fails for other costs, or takes all memory or many seconds. */
function isUsableHash(hash: string): boolean {
  const [memory = 0, passes = 0, lanes = 0] = (passwordHash.exec(hash) ?? []).slice(1).map(Number);
  const isPossible = passes >= 1 && lanes >= 1 && lanes <= 255 && memory >= 8 * lanes;
  return isPossible && memory <= maxHashMemory && memory * passes <= maxHashWork;
}

const expectedInstant = "expected a date and time with an offset, such as 2026-12-31T18:00:00+08:00";

/** A date without an offset is a different instant in every time zone, and access must not depend on a guess. */
const instant = z
  .date(expectedInstant)
  .refine((date) => !(date instanceof TomlDate && date.isLocal()), expectedInstant)
  // A value from a file keeps its offset; any other is written in UTC.
  .refine(
    (date) => date instanceof TomlDate || isTomlTime(date.getTime()),
    "expected a time between the years 1 and 9999 in UTC",
  );

/** Where a field of a user occurs, and as what. */
interface UserField<F extends z.ZodType, S extends z.ZodType> {
  /** In users/NAME.toml. The messages contain no values: one may be a password. */
  readonly file: F;
  /** In responses of the admin API, the audit log and `npm run user -- show`; absent: secret. */
  readonly shown: S;
  readonly show: (value: z.output<F>) => z.input<S>;
}

/** A field that administrators set. */
interface SettableField<R extends z.ZodType, N extends boolean, O extends string> {
  /** In requests of the admin API. */
  readonly request: R;
  /** Whether null (on the command line nothing) removes it, so that its default applies. */
  readonly removable: N;
  /** Its option of `npm run user -- add|set`; KEY=VALUE works for all fields. */
  readonly option?: O;
}

const shown = <F extends z.ZodType, S extends z.ZodType>(field: UserField<F, S>) => field;
const settable = <
  F extends z.ZodType,
  S extends z.ZodType,
  R extends z.ZodType,
  N extends boolean,
  O extends string = never,
>(
  field: UserField<F, S> & SettableField<R, N, O>,
) => field;

/** A time until which or from which something holds. */
const time = (description: string) => ({
  file: instant.optional(),
  request: isoInstant.transform((text) => new Date(text)).describe(description),
  removable: true as const,
  shown: z.iso.datetime().nullable(),
  show: utc,
});

const modelList = z.array(modelGlob).min(1).max(100);

/** A list of addresses and networks; absent: none. */
const addressList = (description: string) => ({
  file: z.array(network).min(1).max(100).optional(),
  request: z.array(network).min(1).max(100).describe(description),
  removable: true as const,
  shown: z.array(z.string()).nullable(),
  show: (list: readonly string[] | undefined) => (list === undefined ? null : [...list]),
});

/** As in the user file: a date, or a date and time with or without an offset. */
const moment = z
  .union([z.iso.date(), z.iso.datetime({ offset: true, local: true })])
  .transform((text): Date => new TomlDate(text));

const grant = {
  metric: z.enum(metricNames),
  per: z.enum(periodNames),
  currency: z.string().optional().describe("Only for cost."),
  amount: z.number(),
  reason: note.optional(),
};

/** All fields that are shown: each once. The order is that of responses. */
const shownFields = {
  username: shown({
    file: z.string().refine(isUserName, "expected lower-case letters, digits, - and _"),
    shown: z.string(),
    show: (name) => name,
  }),
  quota_tier: settable({
    // createAccountSchema adds that the tier exists.
    file: z.string(),
    request: z.string().max(100).describe("A tier of config.toml."),
    removable: false,
    option: "tier",
    shown: z.string(),
    show: (tier) => tier,
  }),
  roles: settable({
    file: z.array(z.enum(roles)).min(1).default(["user"]),
    request: z.array(z.enum(roles)).min(1),
    removable: true,
    option: "role",
    shown: z.array(z.enum(roles)),
    show: (list) => [...list],
  }),
  is_active: settable({
    file: z.boolean().default(true),
    request: z.boolean(),
    removable: true,
    shown: z.boolean(),
    show: (active) => active,
  }),
  active_from: settable({
    ...time("The account can't be used before."),
    option: "active-from",
  }),
  expires_at: settable({
    ...time("The account can't be used from then on."),
    option: "expires-at",
  }),
  banned_until: settable(time("The account can't be used until then.")),
  ban_reason: settable({
    file: note.optional(),
    request: note.describe("Shown to the user while the ban lasts."),
    removable: true,
    shown: z.string().nullable(),
    show: (reason) => reason ?? null,
  }),
  must_change_password: shown({
    file: z.boolean().optional(),
    shown: z.boolean().describe("Whether the password is a one-time one, which only allows setting another."),
    show: (must = false) => must,
  }),
  max_parallel: settable({
    file: z.int().min(1).max(10_000).optional(),
    request: z.int().min(1).max(10_000).describe("Chats at once. Default: concurrency.max_parallel."),
    removable: true,
    option: "max-parallel",
    shown: z.int().nullable(),
    show: (most) => most ?? null,
  }),
  models: settable({
    file: modelList.optional(),
    request: modelList.describe('Models that the user may use; globs such as "deepseek-*". Default: all.'),
    removable: true,
    shown: z.array(z.string()).nullable(),
    show: (list) => (list === undefined ? null : [...list]),
  }),
  default_group: settable({
    file: plainName.optional(),
    request: plainName.describe("The group that requests count for that name none. Default: the first one."),
    removable: true,
    shown: z.string().nullable(),
    show: (group) => group ?? null,
  }),
  service: settable({
    file: z.boolean().optional(),
    request: z
      .boolean()
      .describe("Whether it is a service account: it can't log in, and counts for its default group alone."),
    removable: true,
    shown: z.boolean(),
    show: (service = false) => service,
  }),
  allow_addresses: settable(addressList("Addresses and networks from which the user may come. Default: all.")),
  deny_addresses: settable(
    addressList("Addresses and networks from which the user may not come, even if allow_addresses has them."),
  ),
  // A step that [risk] does not have counts as none: a change of the config must lock no user file.
  trust_step: settable({
    file: plainName.optional(),
    request: plainName.describe("A trust step of config.toml to which the user is pinned, whatever the score."),
    removable: true,
    shown: z.string().nullable(),
    show: (step) => step ?? null,
  }),
  limits: settable({
    file: limitsSchema.optional(),
    request: limitsSchema,
    removable: true,
    shown: z.array(z.looseObject({ metric: z.string(), per: z.string(), max: z.number() })),
    show: (list = []) => [...list],
  }),
  grants: settable({
    file: grantsSchema.optional(),
    request: z
      .array(z.strictObject({ ...grant, until: moment.optional() }))
      // Absent keys stay absent: a user file can't hold undefined.
      .transform((list): readonly GrantConfig[] => list as readonly GrantConfig[])
      .describe("What the user may use in addition, for a time."),
    removable: true,
    shown: z.array(z.looseObject({ ...grant, until: z.string().optional() })),
    // `until` as in the file, with or without an offset.
    show: (list = []) =>
      list.map(({ until, ...rest }) => ({ ...rest, ...(until === undefined ? {} : { until: until.toISOString() }) })),
  }),
  metadata: settable({
    file: z.custom<Metadata>(isMetadata, "expected a table of TOML values").default({}),
    request: z
      .record(z.string(), z.unknown())
      .transform((value) => value as Metadata)
      .describe("A table of your own: strings, numbers, booleans, lists and tables; no null."),
    removable: true,
    shown: z.record(z.string(), z.unknown()).describe("Dates, and integers above 2^53, are strings."),
    show: (table) => toJson(table) as Readonly<Record<string, unknown>>,
  }),
  created_at: shown({ file: z.date().optional(), shown: z.iso.datetime().nullable(), show: utc }),
  invitation: shown({
    file: z.string().max(64).optional(),
    shown: z.string().nullable().describe("The id of the code by which the user registered, and its use."),
    show: (use) => use ?? null,
  }),
};

/** The fields that leave this folder in no response, log or message. */
const secretFields = {
  password: z.string().optional().describe("Plaintext; hashed and removed when the proxy reads it."),
  /** argon2id in PHC format. */
  password_hash: z
    .string()
    .regex(passwordHash, { error: "expected an argon2id hash ($argon2id$v=19$...)", abort: true })
    .refine(isUsableHash, "expected costs of argon2id that a login can afford, such as m=19456,t=2,p=1")
    .optional(),
  /**
   * The second factor: the authenticator's secret in base32, its step that was used last, and digests of recovery
   * codes.
   */
  totp_secret: z
    .string()
    .regex(/^[A-Z2-7]{32}$/, "expected 32 letters and digits of base32")
    .optional(),
  totp_last_step: z.int().min(0).optional(),
  recovery_codes: z
    .array(z.string().regex(/^[0-9a-f]{64}$/, "expected SHA-256 in hex"))
    .max(20)
    .optional(),
  /** Tokens of an older version are refused. Increased by a new password and by disabling. */
  token_version: z.int().min(0).default(0),
};

type ShownFields = typeof shownFields;
type ShownName = keyof ShownFields;
type WithRequest<K extends ShownName> = ShownFields[K] extends { readonly request: z.ZodType } ? K : never;
/** A field that administrators set. */
export type SettableName = { [K in ShownName]: WithRequest<K> }[ShownName];
/** A field that null removes. */
type RemovableName = { [K in SettableName]: ShownFields[K]["removable"] extends true ? K : never }[SettableName];
/** An option of `npm run user -- add|set`. */
export type OptionName = { [K in SettableName]: NonNullable<ShownFields[K]["option"]> }[SettableName];

const shownNames = Object.keys(shownFields) as ShownName[];
export const settableNames = shownNames.filter((name): name is SettableName => "request" in shownFields[name]);

function shape<K extends ShownName, T>(names: readonly K[], valueOf: (name: K) => T): Record<K, T> {
  return Object.fromEntries(names.map((name) => [name, valueOf(name)])) as Record<K, T>;
}

const { username, ...others } = shape(shownNames, (name) => shownFields[name].file);

/** The schemas of users/NAME.toml, by field, in the order in which a new file is written. */
export const fileShape = {
  username,
  password: secretFields.password,
  password_hash: secretFields.password_hash,
  ...others,
  totp_secret: secretFields.totp_secret,
  totp_last_step: secretFields.totp_last_step,
  recovery_codes: secretFields.recovery_codes,
  token_version: secretFields.token_version,
} as { [K in ShownName]: ShownFields[K]["file"] } & typeof secretFields;

/** Those of a new user in requests. */
export const requestShape = shape(settableNames, (name) => shownFields[name].request) as {
  [K in SettableName]: ShownFields[K]["request"];
};

/** Those of a change in requests: null removes. */
export const patchShape = shape(settableNames, (name) => {
  const { request, removable } = shownFields[name];
  return removable ? request.nullable() : request;
}) as {
  [K in SettableName]: K extends RemovableName ? z.ZodNullable<ShownFields[K]["request"]> : ShownFields[K]["request"];
};

/** Those of responses. */
export const responseShape = shape(shownNames, (name) => shownFields[name].shown) as {
  [K in ShownName]: ShownFields[K]["shown"];
};

/** The field of each option of `npm run user -- add|set`. */
export const optionFields = Object.fromEntries(
  settableNames.flatMap((name) => {
    const { option } = shownFields[name];
    return option === undefined ? [] : [[option, name] as const];
  }),
) as Record<OptionName, SettableName>;

/** The values of fields, unchanging. */
type Unchanging<T> = T extends (infer Item)[] ? readonly Item[] : T;
type FileValues = z.output<z.ZodObject<typeof fileShape>>;

/** The contents of a user file: an account whose password may still be plaintext. */
export type AccountFields = { readonly [K in keyof FileValues]: Unchanging<FileValues[K]> };

/** What administrators can set of a new user; absent fields have their defaults. */
export type SettableFields = { readonly [K in SettableName]?: AccountFields[K] | undefined };

/** What they can change; null removes. */
export type FieldChanges = {
  readonly [K in SettableName]?: AccountFields[K] | (K extends RemovableName ? null : never) | undefined;
};

/** A user as administrators see it: the user file without what is secret, as JSON. Dates are ISO 8601 in UTC. */
export type UserView = { readonly [K in ShownName]: z.input<ShownFields[K]["shown"]> };

/** @param account of which only the fields that are shown are read */
export function viewOf(account: { readonly [K in ShownName]?: AccountFields[K] | undefined }): UserView {
  return shape(shownNames, (name) => shownFields[name].show(account[name] as never)) as UserView;
}

/** TOML dates keep the offset they were written with; here they are in UTC. */
function utc(date: Date | undefined): string | null {
  return date === undefined ? null : isoOfInstant(date.getTime());
}

function toJson(value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value !== "object" || value === null) return value;
  // Not by assignment: a TOML key may be __proto__.
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, toJson(inner)]));
}

function isMetadata(value: unknown): value is Metadata {
  return isTable(value) && Object.entries(value).every(([key, inner]) => isText(key) && isMetadataValue(inner));
}

function isMetadataValue(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isMetadataValue);
  if (value instanceof Date) return !Number.isNaN(value.getTime());
  return isText(value) || ["number", "bigint", "boolean"].includes(typeof value) || isMetadata(value);
}

/** JSON's \\u escapes can contain half of a surrogate pair, which UTF-8 cannot represent. */
function isText(value: unknown): boolean {
  return typeof value === "string" && Buffer.from(value).toString() === value;
}

function isTable(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}
