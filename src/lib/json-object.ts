import { isAscii, isUtf8, transcode } from "node:buffer";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const UNDERSCORE = 0x5f;
const CLOSE_BRACE = 0x7d;
/** Bytes of a string to check one by one before searching for its end. */
const NEAR = 24;
/** `__proto__` with each of its 9 letters written as a \u escape of 6 bytes. */
const LONGEST_PROTO = 54;
/** Bytes of a refused key to show. */
const SHOWN_KEY = 100;
/** So many keys may all be different without being checked. */
const UNWATCHED_KEYS = 2000;
/** Size in bits of the table that detects different keys, a power of two. */
const SEEN_BITS = 1 << 16;

const messages = {
  invalid_utf8: "The body is not valid UTF-8.",
  byte_order_mark: "The body starts with a byte order mark.",
  invalid_json: "The body is not valid JSON.",
  not_object: "The body is not a JSON object.",
  too_deep: "The body is nested too deeply.",
  too_many_keys: "The body has too many keys.",
  too_many_values: "The body has too many values.",
  duplicate_key: "The body has the same key twice.",
  forbidden_key: "The body has a key that is not allowed.",
} as const;

/** Why a body was refused. */
type JsonRefusalReason = keyof typeof messages;

/** A refused body. The message is a sentence for the client and quotes nothing of the body. */
export class JsonRefusal extends Error {
  override readonly name = "JsonRefusal";
  readonly reason: JsonRefusalReason;
  /** The invalid key, truncated to 100 characters; undefined if the problem isn't a key. */
  readonly key: string | undefined;

  constructor(reason: JsonRefusalReason, key?: string) {
    super(messages[reason]);
    this.reason = reason;
    this.key = key?.slice(0, SHOWN_KEY);
  }
}

/** Limits on parsing. Beyond them the event loop would block: JSON.parse takes microseconds for a new key. */
export interface JsonLimits {
  /** Maximum nesting of objects and arrays, including the outermost one. */
  readonly maxDepth: number;
  /** Keys of all objects together, including repeated ones. */
  readonly maxKeys: number;
  /** Different keys, counted from the 2,000th key on, and slightly underestimated. */
  readonly maxNewKeys: number;
  /** Members and elements of all objects and arrays together; each object and array counts as one more. */
  readonly maxValues: number;
}

/** A JSON object with its original text and its parsed value. */
export interface JsonObject {
  readonly value: Readonly<Record<string, unknown>>;
  /** The text, in UTF-8, byte for byte as received. */
  readonly bytes: Buffer;
  /** Offsets in `bytes` of the opening quotes of the top-level keys, in the order of the text. */
  readonly keys: readonly number[];
}

/**
 * Parses the body of a request, which may be hostile. JSON.parse alone accepts the last of two equal keys, any depth,
 * and replaces invalid UTF-8; a parser in front of or behind the proxy may decide otherwise, and then two programs have
 * read different requests. A byte order mark is refused, which RFC 8259 (8.1) permits, because the bytes are passed on
 * and the next parser may refuse it. Numbers that overflow (1e999) become Infinity: the caller checks the ones it
 * reads.
 *
 * @throws JsonRefusal
 */
export function parseJsonObject(bytes: Buffer, limits: JsonLimits): JsonObject {
  if (!isUtf8(bytes)) throw new JsonRefusal("invalid_utf8");
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) throw new JsonRefusal("byte_order_mark");
  // Before JSON.parse: too deep or too large a value must not be built. The scan does not check the grammar.
  const { keys, total } = scan(bytes, limits, true);
  const value = parse(decode(bytes));
  if (!isRecord(value)) throw new JsonRefusal("not_object");
  // JSON.parse keeps one of two equal keys, at any level: then there are fewer keys than in the text.
  if (countKeys(value) !== total) throw new JsonRefusal("duplicate_key", firstDuplicate(bytes));
  return { value, bytes, keys };
}

/** Whether JSON is beyond the limits, so that parsing it would take long. Looks at nothing else, not even the grammar. */
export function isTooComplex(bytes: Buffer, limits: JsonLimits): boolean {
  try {
    scan(bytes, limits, false);
    return false;
  } catch (error) {
    if (!(error instanceof JsonRefusal)) throw error;
    return error.reason !== "invalid_json";
  }
}

/**
 * The object's text with the values of top-level members replaced, or added before the closing brace if they are
 * missing. Every other byte stays: unknown fields, the spelling of numbers, white space.
 *
 * @param values Name to JSON text, such as `{stream: "true", model: '"x"'}`; not checked.
 * @returns `object.bytes` itself if nothing changes.
 */
export function replaceMembers(object: JsonObject, values: Readonly<Record<string, string>>): Buffer {
  let present = false;
  let added = "";
  for (const name in values) {
    if (Object.hasOwn(object.value, name)) present = true;
    else added += `${added === "" ? "" : ","}${JSON.stringify(name)}:${values[name]}`;
  }
  const base = present ? replacePresent(object, values) : object.bytes;
  return added === "" ? base : appendMembers(base, object.keys.length > 0 ? `,${added}` : added);
}

/** The object without a top-level member; the object itself if it has no such member. Every other byte stays. */
export function withoutMember(object: JsonObject, name: string): JsonObject {
  const { bytes, keys } = object;
  const index = keys.findIndex((open) => decodeKey(bytes, open + 1, stringEnd(bytes, open + 1)) === name);
  const open = keys[index];
  if (open === undefined) return object;
  // Includes the comma after it; for the last member, the comma before it.
  const next = keys[index + 1];
  const start = next === undefined && index > 0 ? valueEnd(bytes, open) : open;
  const end = next ?? valueEnd(bytes, undefined);
  return {
    value: Object.fromEntries(Object.entries(object.value).filter(([key]) => key !== name)),
    bytes: Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]),
    keys: keys.filter((key) => key !== open).map((key) => (key < start ? key : key - (end - start))),
  };
}

/**
 * The object with one text replaced by another wherever it is the value of `key` in the objects of a top-level list: a
 * role in its messages, for instance. Every other byte stays, and `value` is unchanged.
 */
export function replaceInList(object: JsonObject, list: string, key: string, from: string, to: string): JsonObject {
  const { bytes, keys } = object;
  const index = keys.findIndex((open) => decodeKey(bytes, open + 1, stringEnd(bytes, open + 1)) === list);
  const open = keys[index];
  if (open === undefined) return object;
  const start = skipSpace(bytes, stringEnd(bytes, open + 1) + 1) + 1;
  const end = valueEnd(bytes, keys[index + 1]);
  const pieces: Buffer[] = [];
  let copied = 0;
  let depth = 0;
  for (let pos = start; pos < end;) {
    const byte = bytes[pos];
    if (byte !== QUOTE) {
      if (byte === 0x7b || byte === 0x5b) depth++;
      else if (byte === CLOSE_BRACE || byte === 0x5d) depth--;
      pos++;
      continue;
    }
    const close = stringEnd(bytes, pos + 1);
    const colon = skipSpace(bytes, close + 1);
    const isWanted = depth === 2 && bytes[colon] === COLON && decodeKey(bytes, pos + 1, close) === key;
    pos = isWanted ? skipSpace(bytes, colon + 1) : colon;
    if (!isWanted || bytes[pos] !== QUOTE) continue;
    const valueClose = stringEnd(bytes, pos + 1);
    if (decodeKey(bytes, pos + 1, valueClose) === from) {
      pieces.push(bytes.subarray(copied, pos), Buffer.from(JSON.stringify(to)));
      copied = valueClose + 1;
    }
    pos = valueClose + 1;
  }
  if (pieces.length === 0) return object;
  const edited = Buffer.concat([...pieces, bytes.subarray(copied)]);
  const shift = edited.length - bytes.length;
  return { ...object, bytes: edited, keys: keys.map((at) => (at < end ? at : at + shift)) };
}

function appendMembers(bytes: Buffer, text: string): Buffer {
  const brace = bytes.lastIndexOf(CLOSE_BRACE);
  const length = Buffer.byteLength(text);
  const result = Buffer.allocUnsafe(bytes.length + length);
  bytes.copy(result, 0, 0, brace);
  result.write(text, brace);
  bytes.copy(result, brace + length, brace);
  return result;
}

function replacePresent({ bytes, keys }: JsonObject, values: Readonly<Record<string, string>>): Buffer {
  const pieces: Buffer[] = [];
  let copied = 0;
  const replace = (start: number, end: number, text: string): void => {
    pieces.push(bytes.subarray(copied, start), Buffer.from(text));
    copied = end;
  };
  keys.forEach((open, index) => {
    const close = stringEnd(bytes, open + 1);
    const wanted = ownValue(values, decodeKey(bytes, open + 1, close));
    if (wanted === undefined) return;
    const start = skipSpace(bytes, skipSpace(bytes, close + 1) + 1);
    const end = valueEnd(bytes, keys[index + 1]);
    if (bytes.toString("utf8", start, end) !== wanted) replace(start, end, wanted);
  });
  return pieces.length === 0 ? bytes : Buffer.concat([...pieces, bytes.subarray(copied)]);
}

/**
 * Finds the top-level keys, counts all keys, and refuses some input that JSON.parse would accept. A string is a key if
 * a colon follows: that is true in all valid JSON, and invalid JSON is refused afterwards. Runs in a loop, so no depth
 * can overflow the stack.
 */
function scan(
  bytes: Buffer,
  limits: JsonLimits,
  refusesProtoKeys: boolean,
): { readonly keys: number[]; readonly total: number } {
  const keys: number[] = [];
  let total = 0;
  let values = 0;
  let newKeys = 0;
  let seen: Uint8Array | undefined;
  let depth = 0;
  let pos = 0;
  while (pos < bytes.length) {
    switch (bytes[pos] ?? 0) {
      case QUOTE: {
        const close = stringEnd(bytes, pos + 1);
        const next = skipSpace(bytes, close + 1);
        if (bytes[next] === COLON) {
          if (refusesProtoKeys) refuseProto(bytes, pos + 1, close);
          if (depth === 1) keys.push(pos);
          if (++total > limits.maxKeys) throw new JsonRefusal("too_many_keys");
          if (total > UNWATCHED_KEYS) {
            seen ??= new Uint8Array(SEEN_BITS / 8);
            if (isNew(seen, hashOf(bytes, pos + 1, close)) && ++newKeys > limits.maxNewKeys) {
              throw new JsonRefusal("too_many_keys");
            }
          }
        }
        pos = next;
        break;
      }
      case COMMA:
        if (++values > limits.maxValues) throw new JsonRefusal("too_many_values");
        pos++;
        break;
      case 0x7b: // {
      case 0x5b: // [
        if (++depth > limits.maxDepth) throw new JsonRefusal("too_deep");
        if (++values > limits.maxValues) throw new JsonRefusal("too_many_values");
        pos++;
        break;
      case CLOSE_BRACE:
      case 0x5d: // ]
        depth--;
        pos++;
        break;
      default:
        pos++;
    }
  }
  return { keys, total };
}

/** FNV-1a. */
function hashOf(bytes: Buffer, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let pos = start; pos < end; pos++) hash = Math.imul(hash ^ (bytes[pos] ?? 0), 0x01000193);
  return hash;
}

/** Whether the bit of a hash was not set; sets it. Two hashes may share a bit. */
function isNew(seen: Uint8Array, hash: number): boolean {
  const bit = (hash ^ (hash >>> 16)) & (SEEN_BITS - 1);
  const [at, mask] = [bit >> 3, 1 << (bit & 7)];
  const before = seen[at] ?? 0;
  if ((before & mask) !== 0) return false;
  seen[at] = before | mask;
  return true;
}

/** The number of keys in a value and everything inside it. Its depth is bounded already. */
function countKeys(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (const element of value as readonly unknown[]) if (typeof element === "object") count += countKeys(element);
    return count;
  }
  const record = value as Readonly<Record<string, unknown>>;
  for (const key in record) {
    count++;
    const member = record[key];
    if (typeof member === "object") count += countKeys(member);
  }
  return count;
}

/** The offset of the quote that ends the string whose text begins at `from`. */
function stringEnd(bytes: Buffer, from: number): number {
  let pos = from;
  for (;;) {
    // Keys, and text with many quotes, end before an indexOf call would pay off.
    const near = Math.min(pos + NEAR, bytes.length);
    while (pos < near) {
      if (bytes[pos] === QUOTE) return pos;
      pos += bytes[pos] === BACKSLASH ? 2 : 1;
    }
    const quote = bytes.indexOf(QUOTE, pos);
    if (quote === -1) throw new JsonRefusal("invalid_json");
    let before = quote;
    while (before > pos && bytes[before - 1] === BACKSLASH) before--;
    if ((quote - before) % 2 === 0) return quote;
    pos = quote + 1;
  }
}

function skipSpace(bytes: Buffer, from: number): number {
  let pos = from;
  while (isSpace(bytes[pos])) pos++;
  return pos;
}

/** The offset after a top-level value, found backwards: `nextKey` is the key after it, undefined for the last one. */
function valueEnd(bytes: Buffer, nextKey: number | undefined): number {
  if (nextKey === undefined) return trimSpace(bytes, bytes.lastIndexOf(CLOSE_BRACE));
  const comma = trimSpace(bytes, nextKey) - 1;
  return trimSpace(bytes, comma);
}

function trimSpace(bytes: Buffer, from: number): number {
  let end = from;
  while (isSpace(bytes[end - 1])) end--;
  return end;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** When merged into another object, `__proto__` changes prototypes. It can also be spelled with escapes. */
function refuseProto(bytes: Buffer, start: number, end: number): void {
  const first = bytes[start];
  if ((first !== UNDERSCORE && first !== BACKSLASH) || end - start > LONGEST_PROTO) return;
  if (decodeKey(bytes, start, end) === "__proto__") throw new JsonRefusal("forbidden_key", "__proto__");
}

/** A key as JSON.parse decodes it. */
function decodeKey(bytes: Buffer, start: number, end: number): string {
  const text = bytes.toString("utf8", start, end);
  return text.includes("\\") ? String(parse(`"${text}"`)) : text;
}

/** The first duplicate key within an object; for valid JSON. */
function firstDuplicate(bytes: Buffer): string | undefined {
  const open: Set<string>[] = [];
  for (let pos = 0; pos < bytes.length;) {
    const byte = bytes[pos];
    if (byte === QUOTE) {
      const close = stringEnd(bytes, pos + 1);
      const next = skipSpace(bytes, close + 1);
      if (bytes[next] === COLON) {
        const key = decodeKey(bytes, pos + 1, close);
        const seen = open.at(-1);
        if (seen?.has(key) === true) return key;
        seen?.add(key);
      }
      pos = next;
      continue;
    }
    if (byte === 0x7b) open.push(new Set());
    else if (byte === CLOSE_BRACE) open.pop();
    pos++;
  }
  return undefined;
}

/** The same as `toString()` for valid UTF-8, several times faster for text that is not ASCII. */
function decode(bytes: Buffer): string {
  return isAscii(bytes) ? bytes.toString("latin1") : transcode(bytes, "utf8", "utf16le").toString("utf16le");
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new JsonRefusal("invalid_json");
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function ownValue(values: Readonly<Record<string, string>>, name: string): string | undefined {
  return Object.hasOwn(values, name) ? values[name] : undefined;
}
