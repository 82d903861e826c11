import { anyText, fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { ListReader } from "../../src/lib/list-reader.ts";

describe("ListReader", () => {
  it("reads what JSON.stringify writes", () => {
    const columns = fc.array(fc.oneof(anyText(), fc.constantFrom("\\", '"', '\\"', "\n"), fc.maxSafeNat()), {
      minLength: 1,
    });
    fc.assert(
      fc.property(columns, (list) => {
        const reader = new ListReader(JSON.stringify(list));
        const read = list.map((value) => (typeof value === "string" ? reader.text() : reader.amount()));
        reader.end();
        expect(read).toEqual(list);
      }),
    );
  });

  it.each([
    ["", "not a list"],
    ["{}", "not a list"],
    ["[", "column 1 is not a text"],
    ['["a', "column 1 is not a text"],
    ['["a\\"]', "column 1 is not a text"],
    ["[1]", "column 1 is not a text"],
    ['["a"]', "column 2 is not another"],
    ['["a","b"]', "column 2 is not an amount"],
    ['["a",-1]', "column 2 is not an amount"],
    ['["a",9007199254740993]', "column 2 is not an amount"],
    ['["a",1.5]', "column 2 is not the end"],
    ['["a",1,2]', "column 2 is not the end"],
    ['["a",1', "column 2 is not the end"],
    ['["a",1]]', "column 2 is not the end"],
  ])("refuses %s where a text and an amount are due", (json, message) => {
    expect(() => {
      const reader = new ListReader(json);
      reader.text();
      reader.amount();
      reader.end();
    }).toThrow(message);
  });
});
