import { expect } from "vitest";
import { errorTable, type ErrorCode } from "../../src/errors.ts";
import { quotaOf } from "./quota.ts";
import type { RawAnswer } from "./raw-http.ts";
import type { ScriptedUpstream } from "./scripted-upstream.ts";
import { alicePassword, upstreamKey, type RunningProxy } from "./start-proxy.ts";

/** A response of fetch in the form that the checks take. */
export async function answerOf(response: Response): Promise<RawAnswer> {
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body: await response.text(),
  };
}

/**
 * Checks a refusal as the client and as the operator see it: status, code and shape of the body, the trace id in the
 * header and in the body, one line in the log and no secret in it. Returns the body's `error`.
 */
export function expectRefusal(
  proxy: RunningProxy,
  answer: RawAnswer,
  code: ErrorCode,
  param: string | null = null,
): Readonly<Record<string, unknown>> {
  const { error } = JSON.parse(answer.body) as { error: Record<string, unknown> };
  const { status, type } = errorTable[code];
  expect({ status: answer.status, ...error }).toEqual({
    status,
    type,
    code,
    param,
    message: expect.any(String),
    trace_id: expect.stringMatching(/^[A-Za-z0-9._-]{8,64}$/),
    ...(error.details === undefined ? {} : { details: expect.any(Object) }),
  });
  expect(answer.headers["x-request-id"]).toBe(error.trace_id);
  expect(answer.headers["content-type"]).toBe("application/json; charset=utf-8");
  if (status === 401) expect(answer.headers["www-authenticate"]).toBe("Bearer");
  if (status === 429 || status === 503) expect(answer.headers["retry-after"]).toMatch(/^[1-9]\d*$/);
  const lines = proxy.logLines.filter((line) => line.includes(String(error.trace_id)));
  expect(lines, "one log line").toHaveLength(1);
  const line = JSON.parse(lines[0] ?? "") as Readonly<Record<string, unknown>>;
  expect({ level: line.level, code: line.code ?? line.reason }).toEqual({ level: "info", code });
  return error;
}

/** Checks that refused requests have left nothing behind: no call upstream, no charge, no hold, no permit. */
export async function expectNoTraces(proxy: RunningProxy, upstream: ScriptedUpstream, token: string): Promise<void> {
  expect(upstream.received, "calls upstream").toBe(0);
  expect(await quotaOf(proxy, token)).toMatchObject([{ used: 0, reserved: 0 }]);
  const { concurrency: permits, gateway: chat } = proxy.services;
  expect([permits.inFlight(), permits.waiting(), chat.running()]).toEqual([0, 0, 0]);
  const log = proxy.logLines.join("");
  for (const secret of [alicePassword, upstreamKey, token]) expect(log).not.toContain(secret);
}
