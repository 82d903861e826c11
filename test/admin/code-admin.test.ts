import { expect, it } from "vitest";
import { createAudit } from "../../src/admin/audit.ts";
import { createCodeAdmin } from "../../src/admin/code-admin.ts";
import type { CodeBatch, Codes } from "../../src/identity/codes.ts";
import { createManualClock } from "../support/manual-clock.ts";

it("makes many batches of codes in one second, each with an id of its own", async () => {
  const batches = new Map<string, CodeBatch>();
  const codes: Codes = {
    ids: () => [...batches.keys()].sort(),
    get: (id) => batches.get(id),
    change(id, change) {
      const next = change(batches.get(id));
      if (next !== undefined) batches.set(id, next);
      return next;
    },
  };
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  const log = { append: () => Promise.resolve(), check: () => Promise.resolve(), health: () => ({ lastError: null }) };
  const admin = createCodeAdmin({
    codes,
    groups: { get: () => undefined },
    tierNames: () => ["basic"],
    config: () => ({ quota: { currency: "CNY" }, models: { prices: [] } }),
    clock,
    audit: createAudit({ log, emit: () => undefined, clock }),
  });
  const gives = { kind: "quota", metric: "tokens", per: "total", amount: 5 } as const;
  for (let made = 0; made < 200; made++)
    await admin.create({ by: "root", ip: "192.0.2.1", traceId: "t" }, { name: "n", count: 1, uses: 1, gives });
  expect(batches.size).toBe(200);
});
