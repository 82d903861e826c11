import { describe, expect, it } from "vitest";
import { AppError, type ErrorCode, errorTable } from "../../src/errors.ts";
import { readRetryAfter } from "../../src/lib/retry-after.ts";

describe("P5: a Retry-After", () => {
  const now = Date.parse("2026-11-25T12:00:00Z");
  it.each<readonly [string, Record<string, string | string[]>, number | undefined]>([
    ["seconds", { "retry-after": "120" }, 120_000],
    ["part of a second", { "retry-after": "0.5" }, 500],
    [
      "part of a second with all the digits that a program may write",
      { "retry-after": "0.30000000000000004" },
      0.30000000000000004 * 1000,
    ],
    ["milliseconds and parts of one", { "retry-after-ms": "1.0030090270812437" }, 1.0030090270812437],
    ["white space", { "retry-after": " 7 " }, 7000],
    ["zero", { "retry-after": "0" }, 0],
    ["a date", { "retry-after": "Wed, 25 Nov 2026 12:02:00 GMT" }, 120_000],
    ["a date of RFC 850", { "retry-after": "Wednesday, 25-Nov-26 12:02:00 GMT" }, 120_000],
    ["a date of asctime", { "retry-after": "Wed Nov 25 12:02:00 2026" }, 120_000],
    ["more seconds than anybody waits", { "retry-after": "99999999999999999999" }, 600_000],
    ["a date that has passed", { "retry-after": "Wed, 25 Nov 2026 11:00:00 GMT" }, undefined],
    ["milliseconds", { "retry-after-ms": "1500" }, 1500],
    ["both, of which milliseconds are more exact", { "retry-after-ms": "1500", "retry-after": "2" }, 1500],
    ["bad milliseconds beside seconds", { "retry-after-ms": "soon", "retry-after": "2" }, 2000],
    ["several", { "retry-after": ["1", "30", "x"] }, 30_000],
    ["words", { "retry-after": "soon" }, undefined],
    ["a negative number", { "retry-after": "-1" }, undefined],
    ["another notation", { "retry-after": "0x10" }, undefined],
    ["nothing", {}, undefined],
  ])("is read in every form: %s", (_form, headers, ms) => {
    expect(readRetryAfter(headers, now)).toBe(ms);
  });
});

describe("P5: every 429 and 503 says when to try again", () => {
  it.each(Object.keys(errorTable) as ErrorCode[])("%s", (code) => {
    const { status } = errorTable[code];
    expect(new AppError(code).extras.retryAfterSeconds).toBe(status === 429 || status === 503 ? 1 : undefined);
    expect(new AppError(code, { status: 503, shouldRetry: false }).extras).toMatchObject({ retryAfterSeconds: 1 });
    expect(new AppError(code, { retryAfterSeconds: 7 }).extras).toEqual({ retryAfterSeconds: 7 });
  });
});
