import { expect, it } from "vitest";
import { hasValue } from "../../src/providers/stream/event-parser.ts";

const finish = (json: string) => hasValue(json, '"finish', '_reason"');

it.each([
  ['{"finish_reason":"stop"}', true],
  ['{"finish_reason" : \n "stop"}', true],
  ['{"finish_reason":null}', false],
  ['{"finish_reason" :\t null}', false],
  ['{"choices":[{"finish_reason":null},{"finish_reason":"length"}]}', true],
  ['{"x_reason":"stop"}', false],
  ['{"unfinish_reason":"stop"}', false],
  ['{"content":"finish_reason","finish_reason":null}', false],
  ['{"content":"\\"finish_reason\\":\\"stop\\""}', false],
  ['{"list":["finish_reason","stop"]}', false],
  ['{"finish_reason', false],
  ['_reason":1', false],
  ["", false],
])("finds the key with a value in %j: %s", (json, found) => {
  expect(finish(json)).toBe(found);
});
