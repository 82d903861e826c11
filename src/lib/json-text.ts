const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const colon = 0x3a;
const letterU = 0x75;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;
/** Maximum nesting of lists and objects; deeper text doesn't count. */
const maxDepth = 16;
const nothing = Buffer.alloc(0);

/** The location of text in a JSON value. Lists are searched: their elements have the list's own shape. */
export interface TextShape {
  /** Whether a string at this place is text. */
  readonly isText: boolean;
  readonly members: readonly TextMember[];
}

interface TextMember {
  readonly key: string;
  /** The key in UTF-8. */
  readonly name: Buffer;
  readonly shape: TextShape;
  /** Whether it repeats similar members of the object: only the longest of those counts. */
  readonly repeats: boolean;
}

type Shapes = Readonly<Record<string, TextShape>>;

/** A string that is text. */
export const textString: TextShape = { isText: true, members: [] };

/**
 * Text under some keys of an object.
 * @param keys each of which counts
 * @param alternatives keys with the same content in different words: only the longest of them counts
 */
export function textUnder(keys: Shapes, alternatives: Shapes = {}): TextShape {
  return { isText: false, members: [...membersOf(keys, false), ...membersOf(alternatives, true)] };
}

/** A string, or else objects with text under some keys. */
export function textOrUnder(keys: Shapes): TextShape {
  return { isText: true, members: membersOf(keys, false) };
}

function membersOf(keys: Shapes, repeats: boolean): TextMember[] {
  return Object.entries(keys).map(([key, shape]) => ({ key, name: Buffer.from(key), shape, repeats }));
}

/** As JsonText, for a value that has been parsed: bytes of its text as UTF-8. */
export function textBytesOf(value: unknown, shape: TextShape, depth = 0): number {
  if (typeof value === "string") return shape.isText ? Buffer.byteLength(value) : 0;
  if (typeof value !== "object" || value === null || depth >= maxDepth) return 0;
  let sum = 0;
  if (Array.isArray(value)) {
    for (const item of value as readonly unknown[]) sum += textBytesOf(item, shape, depth + 1);
    return sum;
  }
  let longest = 0;
  for (const member of shape.members) {
    if (!Object.hasOwn(value, member.key)) continue;
    const count = textBytesOf((value as Readonly<Record<string, unknown>>)[member.key], member.shape, depth + 1);
    if (member.repeats) longest = Math.max(longest, count);
    else sum += count;
  }
  return sum + longest;
}

/**
 * Measures the text in JSON without parsing it: one pass over its bytes that allocates nothing. In invalid JSON it
 * counts as much as can be recognized; it always terminates, and never throws.
 */
export class JsonText {
  readonly #shape: TextShape;
  #bytes: Buffer = nothing;
  #pos = 0;
  #end = 0;

  constructor(shape: TextShape) {
    this.#shape = shape;
  }

  /** Bytes of the text in bytes[start, end) as UTF-8, without the JSON's escapes. */
  bytesIn(bytes: Buffer, start: number, end: number): number {
    this.#bytes = bytes;
    this.#pos = start;
    this.#end = end;
    this.#skipSpace();
    const count = this.#measure(this.#shape, 0);
    // Doesn't keep the network's buffer alive.
    this.#bytes = nothing;
    return count;
  }

  /** Measures the value that begins here, and moves past it. */
  #measure(shape: TextShape, depth: number): number {
    switch (this.#bytes[this.#pos] ?? 0) {
      case quote:
        return shape.isText ? this.#measureString() : this.#skipValue();
      case openBrace:
        return shape.members.length > 0 && depth < maxDepth ? this.#measureObject(shape, depth) : this.#skipValue();
      case openBracket:
        return depth < maxDepth ? this.#measureList(shape, depth) : this.#skipValue();
      default:
        return this.#skipValue();
    }
  }

  #measureObject(shape: TextShape, depth: number): number {
    let sum = 0;
    let longest = 0;
    this.#pos++;
    while (this.#toNext(closeBrace)) {
      if (this.#bytes[this.#pos] !== quote) return this.#giveUp(sum + longest);
      const from = this.#pos + 1;
      this.#skipString();
      const member = memberOf(shape, this.#bytes, from, this.#pos - 1);
      this.#skipSpace();
      if (this.#bytes[this.#pos] !== colon) return this.#giveUp(sum + longest);
      this.#pos++;
      this.#skipSpace();
      if (member === undefined) this.#skipValue();
      else {
        const count = this.#measure(member.shape, depth + 1);
        if (member.repeats) longest = Math.max(longest, count);
        else sum += count;
      }
    }
    return sum + longest;
  }

  #measureList(shape: TextShape, depth: number): number {
    let sum = 0;
    this.#pos++;
    while (this.#toNext(closeBracket)) {
      const before = this.#pos;
      sum += this.#measure(shape, depth + 1);
      if (this.#pos === before) return this.#giveUp(sum);
    }
    return sum;
  }

  /** Moves to the next member or element; if there is none, past the object or list, and returns false. */
  #toNext(close: number): boolean {
    this.#skipSpace();
    if (this.#bytes[this.#pos] === comma) {
      this.#pos++;
      this.#skipSpace();
    }
    if (this.#pos >= this.#end) return false;
    if (this.#bytes[this.#pos] !== close) return true;
    this.#pos++;
    return false;
  }

  #measureString(): number {
    const bytes = this.#bytes;
    const end = this.#end;
    let pos = this.#pos + 1;
    let count = 0;
    while (pos < end) {
      const byte = bytes[pos++];
      if (byte === quote) break;
      if (byte !== backslash) count++;
      else if (bytes[pos] !== letterU) {
        pos++;
        count++;
      } else {
        count += utf8Bytes(bytes, pos + 1);
        pos += 5;
      }
    }
    this.#pos = Math.min(pos, end);
    return count;
  }

  #skipString(): void {
    const bytes = this.#bytes;
    const end = this.#end;
    let pos = this.#pos + 1;
    while (pos < end) {
      const byte = bytes[pos++];
      if (byte === quote) break;
      if (byte === backslash) pos++;
    }
    this.#pos = Math.min(pos, end);
  }

  /** Moves past a value without counted text: 0. Stays if none begins here. */
  #skipValue(): 0 {
    let depth = 0;
    while (this.#pos < this.#end) {
      switch (this.#bytes[this.#pos] ?? 0) {
        case quote:
          this.#skipString();
          if (depth === 0) return 0;
          continue;
        case openBrace:
        case openBracket:
          depth++;
          break;
        case closeBrace:
        case closeBracket:
          if (depth === 0) return 0;
          if (--depth === 0) {
            this.#pos++;
            return 0;
          }
          break;
        case comma:
          if (depth === 0) return 0;
      }
      this.#pos++;
    }
    return 0;
  }

  #skipSpace(): void {
    while (this.#pos < this.#end && (this.#bytes[this.#pos] ?? 0) <= 0x20) this.#pos++;
  }

  #giveUp(count: number): number {
    this.#pos = this.#end;
    return count;
  }
}

function memberOf({ members }: TextShape, bytes: Buffer, from: number, to: number): TextMember | undefined {
  for (const member of members) {
    if (member.name.length === to - from && isAt(bytes, from, member.name)) return member;
  }
  return undefined;
}

function isAt(bytes: Buffer, at: number, wanted: Buffer): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false;
  return true;
}

/** UTF-8 bytes of a character written as four hex digits; a surrogate pair has four, two for each. */
function utf8Bytes(bytes: Buffer, at: number): number {
  const code =
    (hexAt(bytes, at) << 12) | (hexAt(bytes, at + 1) << 8) | (hexAt(bytes, at + 2) << 4) | hexAt(bytes, at + 3);
  if (code < 0x80) return 1;
  return code < 0x800 || (code >= 0xd800 && code < 0xe000) ? 2 : 3;
}

function hexAt(bytes: Buffer, at: number): number {
  const byte = bytes[at] ?? 0x30;
  return byte <= 0x39 ? byte & 0xf : (byte & 0xf) + 9;
}
