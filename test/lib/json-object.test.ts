import { anyText, fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import {
  JsonRefusal,
  parseJsonObject,
  replaceInList,
  replaceMembers,
  withoutMember,
} from "../../src/lib/json-object.ts";

const limits = { maxDepth: 64, maxKeys: 20_000, maxNewKeys: 1_000, maxValues: 50_000 };

function parse(text: string) {
  return parseJsonObject(Buffer.from(text), limits);
}

/** The refusal's reason and key, or "taken". */
function verdict(bytes: Buffer | string): string {
  try {
    parseJsonObject(Buffer.from(bytes as string), limits);
    return "taken";
  } catch (error) {
    if (!(error instanceof JsonRefusal)) throw error;
    return error.key === undefined ? error.reason : `${error.reason} ${error.key}`;
  }
}

function edit(text: string, values: Record<string, string>): string {
  return replaceMembers(parse(text), values).toString();
}

/** Writes a string with some of its letters as escapes. */
function escaped(key: string, mask: number): string {
  const letters = Array.from({ length: key.length }, (_, i) =>
    (mask >> (i % 16)) & 1
      ? `\\u${key.charCodeAt(i).toString(16).padStart(4, "0")}`
      : JSON.stringify(key[i]).slice(1, -1),
  );
  return `"${letters.join("")}"`;
}

const space = fc.constantFrom("", "", " ", "\n  ", "\t", "\r\n");
const key = fc.oneof(
  fc.constantFrom("model", "stream", "messages", "", "a", "0", "__proto", 'quo"te', "back\\", "{", "键", "constructor"),
  anyText({ maxLength: 40 }).filter((k) => k !== "__proto__"),
);
const value = fc
  .tuple(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(0, 2))
  .map(([json, indent]) => JSON.stringify(json, null, indent))
  .filter((json) => !json.includes("__proto__"));
/** The text of an object as `"key": value` pairs with all sorts of white space; keys may be equal. */
const members = fc.array(fc.tuple(key, fc.nat(), value, fc.array(space, { minLength: 4, maxLength: 4 })), {
  maxLength: 6,
});
type Members = typeof members extends fc.Arbitrary<infer T> ? T : never;

function write(list: Members): string {
  const parts = list.map(([name, mask, json, [a, b, c, d]]) => [a, escaped(name, mask), b, ":", c, json, d].join(""));
  return `{${parts.join(",")}}`;
}

describe("parseJsonObject", () => {
  it("reads what JSON.parse reads, wherever no key stands twice", () => {
    fc.assert(
      fc.property(members, space, (list, around) => {
        const text = around + write(list) + around;
        const names = list.map(([name]) => name);
        const twice = names.find((name, i) => names.indexOf(name) < i);
        if (twice === undefined) expect(parse(text).value).toEqual(JSON.parse(text));
        else expect(verdict(text)).toContain("duplicate_key");
      }),
      { numRuns: 2000 },
    );
  });

  it("takes nothing that JSON.parse refuses, and throws nothing but refusals", () => {
    const pieces = fc.constantFrom(
      '"',
      "\\",
      "{",
      "}",
      "[",
      "]",
      ":",
      ",",
      "1",
      "a",
      " ",
      '"a"',
      "null",
      "\\u005f",
      "é",
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 12 }), (parts) => {
        const text = parts.join("");
        let valid = true;
        try {
          JSON.parse(text);
        } catch {
          valid = false;
        }
        const outcome = verdict(text);
        if (!valid) expect(outcome).not.toBe("taken");
        else expect(outcome).not.toBe("invalid_json");
      }),
      { numRuns: 5000 },
    );
  });

  it("throws nothing but refusals for any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        expect(verdict(Buffer.from(bytes))).not.toBe("");
      }),
    );
  });

  it.each([
    ["", "invalid_json"],
    ["{", "invalid_json"],
    ['{"a":1', "invalid_json"],
    ['{"a', "invalid_json"],
    ['{"a":"\\', "invalid_json"],
    ['{"a":1,}', "invalid_json"],
    ['{"a":NaN}', "invalid_json"],
    ['{"a":1}{}', "invalid_json"],
    ['{"\\x":1}', "invalid_json"],
    ["}}}}", "invalid_json"],
    ["[]", "not_object"],
    ["null", "not_object"],
    ['"text"', "not_object"],
    ['[{"a":1,"a":2}]', "not_object"],
    ["\uFEFF{}", "byte_order_mark"],
    ['{"model":"a","stream":true,"model":"b"}', "duplicate_key model"],
    ['{"model":"a","mod\\u0065l":"b"}', "duplicate_key model"],
    ['{"é":"a","\\u00e9":"b"}', "duplicate_key é"],
    ['{"__proto__":{}}', "forbidden_key __proto__"],
    ['{"a":[{"b":{"__proto__" :1}}]}', "forbidden_key __proto__"],
    ['{"\\u005f_proto__":{}}', "forbidden_key __proto__"],
    ['{"_\\u005f\\u0070roto__":{}}', "forbidden_key __proto__"],
    [`{"a":{${escaped("__proto__", 0xffff)}\n:1}}`, "forbidden_key __proto__"],
    ['{"a":"__proto__","b":["__proto__"]}', "taken"],
    ['{"a":"\\"__proto__\\":1"}', "taken"],
    ['{"__proto":1,"_proto__":2}', "taken"],
    ['{"a":{"b":1,"b":2}}', "duplicate_key b"],
    ['{"a":[{"b":{"c":1}},{"b":{"d":[],"\\u0064":{}}}]}', "duplicate_key d"],
    ['{"a":{"x":{"b":1}},"c":{"x":{"b":1}}}', "taken"],
    ['{"a":[{"b":1},{"b":1}],"b":1}', "taken"],
    ['{"a":"\\\\","b":"\\\\\\""}', "taken"],
    ['{"a":1e999}', "taken"],
    ["{}", "taken"],
    [" \n{ }\t", "taken"],
  ])("says of %j: %s", (text, expected) => {
    expect(verdict(text)).toBe(expected);
  });

  it("finds the end of a string wherever quotes and backslashes stand in it", () => {
    for (let length = 0; length < 60; length++) {
      for (const ending of ['\\"', "\\\\", '\\\\\\"', '\\",\\"__proto__\\":{', "\\\\\\\\"]) {
        const text = `{"a":"${"x".repeat(length)}${ending}","b":1}`;
        expect(parse(text).keys).toEqual([1, text.lastIndexOf('"b"')]);
      }
    }
  });

  it("refuses invalid UTF-8, also inside a string", () => {
    const [before, after] = [Buffer.from('{"a":"'), Buffer.from('"}')];
    for (const bad of [[0xff], [0xc3], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80]]) {
      expect(verdict(Buffer.concat([before, Buffer.from(bad), after]))).toBe("invalid_utf8");
    }
  });

  it("decodes every character as toString does", () => {
    const all = Array.from({ length: 0x110000 }, (_, code) => code)
      .filter((code) => code >= 0x20 && code !== 0x22 && code !== 0x5c && (code < 0xd800 || code > 0xdfff))
      .map((code) => String.fromCodePoint(code))
      .join("");
    expect(parse(`{"a":"${all}"}`).value.a === all).toBe(true);
  });

  it("counts the outermost object as the first level of nesting", () => {
    const nested = (levels: number) => `{"a":${"[".repeat(levels - 1)}${"]".repeat(levels - 1)}}`;
    expect(verdict(nested(64))).toBe("taken");
    expect(verdict(nested(65))).toBe("too_deep");
    expect(verdict(`{"a":"${"[".repeat(1000)}"}`)).toBe("taken");
  });

  it.each([10_000, 1_000_000])("refuses %i levels without overflowing the stack", (levels) => {
    expect(verdict(`{"a":${"[".repeat(levels)}${"]".repeat(levels)}}`)).toBe("too_deep");
    expect(verdict('{"a":'.repeat(levels))).toBe("too_deep");
  });

  it("refuses a key that stands twice in its object, at any depth", () => {
    const nested = fc.letrec<{ node: string }>((tie) => ({
      node: fc.oneof(
        { depthSize: "small" },
        fc.constantFrom("1", '"a"', "[]", "{}"),
        fc.array(tie("node"), { maxLength: 3 }).map((list) => `[${list.join(",")}]`),
        fc
          .array(fc.tuple(fc.constantFrom("a", "b", "c", "\\u0061"), tie("node")), { maxLength: 3 })
          .map((list) => `{${list.map(([name, json]) => `"${name}":${json}`).join(",")}}`),
      ),
    })).node;
    fc.assert(
      fc.property(nested, (json) => {
        const text = `{"a":${json}}`;
        let twice = false;
        // A reviver sees an object only after the fact, so the text is read by hand: one level at a time.
        const open: Set<string>[] = [];
        for (const [token, name] of text.matchAll(/"([^"]*)":|[{}]/g)) {
          if (token === "{") open.push(new Set());
          else if (token === "}") open.pop();
          else {
            const key = JSON.parse(`"${name ?? ""}"`) as string;
            twice ||= open.at(-1)?.has(key) === true;
            open.at(-1)?.add(key);
          }
        }
        expect(verdict(text).startsWith("duplicate_key")).toBe(twice);
      }),
      { numRuns: 1000 },
    );
  });

  it("bounds what JSON.parse would have to build", () => {
    const list = (element: string, count: number) => `{"a":[${Array(count).fill(element).join(",")}]}`;
    const different = (count: number) => `{${Array.from({ length: count }, (_, i) => `"k${i}":1`).join(",")}}`;
    expect(verdict(list("1", 49_990))).toBe("taken");
    expect(verdict(list("1", 50_001))).toBe("too_many_values");
    expect(verdict(list("[]", 25_001))).toBe("too_many_values");
    expect(verdict(list('{"b":1}', 9_990))).toBe("taken");
    expect(verdict(list('{"b":1,"c":1}', 10_001))).toBe("too_many_keys");
    expect(verdict(different(2_900))).toBe("taken");
    expect(verdict(different(3_100))).toBe("too_many_keys");
  });

  it("cuts a long key and keeps the body out of the message", () => {
    const long = "k".repeat(5000);
    const refusal = (() => {
      try {
        return parse(`{"${long}":1,"${long}":2}`);
      } catch (error) {
        return error as JsonRefusal;
      }
    })();
    expect(refusal).toMatchObject({ reason: "duplicate_key", key: "k".repeat(100) });
    expect((refusal as JsonRefusal).message).not.toContain("kk");
  });
});

describe("replaceMembers", () => {
  it("changes what is named and leaves every other byte", () => {
    const text =
      '{ "stream" :false ,\n "n": 1.0e+2, "model":"a", "x":{"model":"in\\u0065r"}, "big": 12345678901234567890 }\n';
    expect(edit(text, { stream: "true", model: '"b"' })).toBe(
      '{ "stream" :true ,\n "n": 1.0e+2, "model":"b", "x":{"model":"in\\u0065r"}, "big": 12345678901234567890 }\n',
    );
  });

  it("adds what is missing before the closing brace", () => {
    expect(edit('{"a":1}\n', { stream: "true", b: "[1]" })).toBe('{"a":1,"stream":true,"b":[1]}\n');
    expect(edit('{"a":"}"\n}', { stream: "true" })).toBe('{"a":"}"\n,"stream":true}');
    expect(edit(" { } ", { 'q"': "1" })).toBe(' { "q\\"":1} ');
    expect(edit("{}", { toString: "1" })).toBe('{"toString":1}');
  });

  it("finds a member whose key is written with escapes", () => {
    expect(edit('{"mod\\u0065l":"a"}', { model: '"b"' })).toBe('{"mod\\u0065l":"b"}');
  });

  it("returns the very bytes where nothing changes", () => {
    const object = parse('{"stream":true,"model":"原理"}');
    expect(replaceMembers(object, {})).toBe(object.bytes);
    expect(replaceMembers(object, { stream: "true", model: '"原理"' })).toBe(object.bytes);
  });

  it("leaves the bytes that it was given as they were", () => {
    const object = parse('{"stream":false}');
    replaceMembers(object, { stream: "true" });
    expect(object.bytes.toString()).toBe('{"stream":false}');
  });

  it("gives the text of the object with the new values, for any object and any edit", () => {
    const edits = fc.dictionary(key, value, { maxKeys: 4 });
    fc.assert(
      fc.property(members, space, edits, (list, around, values) => {
        const names = new Set(list.map(([name]) => name));
        fc.pre(names.size === list.length);
        const changed: Members = list.map(([name, mask, json, spaces]) => {
          const now = Object.hasOwn(values, name) ? values[name] : undefined;
          return [name, mask, now ?? json, spaces];
        });
        const missing = Object.keys(values).filter((name) => !names.has(name));
        const added = missing.map((name) => `${JSON.stringify(name)}:${values[name] ?? ""}`);
        const body = write(changed).slice(0, -1);
        const tail = added.length === 0 ? "" : (list.length > 0 ? "," : "") + added.join(",");
        expect(edit(around + write(list) + around, values)).toBe(`${around}${body}${tail}}${around}`);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("withoutMember", () => {
  it.each([
    ["the first", '{ "x" : [1] , "a":2 }', '{ "a":2 }'],
    ["one in the middle", '{"a":1 , "x":{"y":","} , "b":2}', '{"a":1 , "b":2}'],
    ["the last", '{"a":1 ,\n "x":"}"\n}', '{"a":1\n}'],
    ["the only one", '{ "x":1 }', "{  }"],
    ["one with escapes in its key", '{"a":1,"\\u0078":2}', '{"a":1}'],
  ])("takes out %s and leaves every other byte", (_, text, rest) => {
    const left = withoutMember(parse(text), "x");
    expect(left.bytes.toString()).toBe(rest);
    expect(left).toEqual(parse(rest));
    expect(JSON.parse(replaceMembers(left, { a: "3", c: "4" }).toString())).toMatchObject({ a: 3, c: 4 });
  });

  it("returns the object itself where there is none of that name", () => {
    const object = parse('{"a":{"x":1}}');
    expect(withoutMember(object, "x")).toBe(object);
  });

  it("leaves the others as they were, whatever the object", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue(), fc.nat(), (others, value, at) => {
        const entries = Object.entries(others).filter(([key]) => key !== "x" && key !== "__proto__");
        const whole = [...entries.slice(0, at % 5), ["x", value] as const, ...entries.slice(at % 5)];
        const text = JSON.stringify(Object.fromEntries(whole), null, at % 3);
        if (text.includes("__proto__")) return;
        // Through text on both sides: JSON writes -0 as 0.
        const expected: unknown = JSON.parse(JSON.stringify(Object.fromEntries(entries)));
        expect(JSON.parse(withoutMember(parse(text), "x").bytes.toString())).toEqual(expected);
      }),
    );
  });
});

describe("replaceInList", () => {
  const edited = (text: string) => {
    const object = parse(text);
    const result = replaceInList(object, "messages", "role", "developer", "system");
    // What stands behind it is found as before.
    const both = replaceMembers(result, { z: "2" }).toString();
    expect(both).toBe(result.bytes.toString().replace('"z":1', '"z":2'));
    return result.bytes.toString();
  };

  it.each([
    ['{"messages":[{"role":"developer","content":"a"}],"z":1}', '{"messages":[{"role":"system","content":"a"}],"z":1}'],
    [
      '{"z":1,"messages" : [ {"content":"a" , "role" :\n"developer" } ] }',
      '{"z":1,"messages" : [ {"content":"a" , "role" :\n"system" } ] }',
    ],
    [
      '{"messages":[{"r\\u006fle":"dev\\u0065loper"},{"role":"user"}],"z":1}',
      '{"messages":[{"r\\u006fle":"system"},{"role":"user"}],"z":1}',
    ],
    [
      '{"messages":[{"role":"developer"},{"role":"developer"}],"z":1}',
      '{"messages":[{"role":"system"},{"role":"system"}],"z":1}',
    ],
  ])("replaces the text in %s", (before, after) => {
    expect(edited(before)).toBe(after);
  });

  it.each([
    '{"role":"developer","z":1,"messages":[]}',
    '{"messages":[{"content":{"role":"developer"}}],"other":[{"role":"developer"}],"z":1}',
    '{"messages":[{"content":[{"role":"developer"}]}],"z":1}',
    '{"messages":[[{"role":"developer"}]],"z":1}',
    '{"messages":[{"name":"role","content":"\\"role\\":\\"developer\\""}],"z":1}',
    '{"messages":{"role":"developer"},"z":1}',
    '{"messages":[{"role":"developers"}],"z":1}',
    '{"z":1}',
  ])("leaves %s as it is", (text) => {
    expect(edited(text)).toBe(text);
  });
});
