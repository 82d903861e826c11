import { describe, expect, it } from "vitest";
import { createMinuteSeries } from "../../src/events/minute-series.ts";
import { chatFinished } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";

const minute = 60_000;
const noon = Date.UTC(2026, 10, 22, 12);

describe("the series of minutes", () => {
  function use() {
    const clock = createManualClock(noon);
    const series = createMinuteSeries(clock);
    const end = (fields: Partial<ReturnType<typeof chatFinished>>) => {
      series.sink(chatFinished({ at: clock.now(), inputTokens: 10, outputTokens: 5, cost: 0, ...fields }));
    };
    return { clock, series, end };
  }

  it("stops counting tokens and cost at the largest amount", () => {
    const { series, end } = use();
    const most = Number.MAX_SAFE_INTEGER;
    const model = { model: "m", provider: "p", upstreamModel: "m" };
    for (const cost of [most, most]) end({ ...model, inputTokens: most - 5, cost, currency: "CNY" });
    for (const tally of [series.minutes().at(-1), series.byModel()[0], series.byProvider()[0]])
      expect(tally).toMatchObject({ tokens: most, cost: { CNY: most } });
  });

  it("counts each chat once, by its ending", () => {
    const { series, end } = use();
    end({ code: "ok", status: 200, outcome: "completed", cost: 7, currency: "CNY", firstEventMs: 100 });
    end({ code: "quota_exceeded", status: 402, outcome: "refused", firstEventMs: null });
    end({ code: "upstream_error", status: 502, outcome: "upstream_failed", firstEventMs: null, requests: 0 });
    end({ code: "ok", status: 200, outcome: "client_gone", firstEventMs: 300, cost: 5, currency: "USD" });
    end({ code: "ok", status: 0, outcome: "refused", firstEventMs: null });
    const minutes = series.minutes();
    expect(minutes).toHaveLength(60);
    expect(minutes.at(-1)).toEqual({
      at: noon,
      ok: 1,
      refused: 1,
      failed: 1,
      client_gone: 2,
      tokens: 60,
      cost: { CNY: 7, USD: 5 },
      first_token_p95_ms: 300,
    });
    // Zero is zero, no time is none.
    expect(minutes[0]).toMatchObject({ at: noon - 59 * minute, ok: 0, first_token_p95_ms: null });
  });

  it("forgets what is over for an hour, and what a wrong clock put ahead", () => {
    const { clock, series, end } = use();
    end({ model: "a", provider: "x" });
    clock.advance(30 * minute);
    end({ model: "b", provider: "x" });
    end({ model: "b", provider: "x" });
    end({ model: "made up", provider: "" });
    expect(series.byModel().map(({ name, requests }) => [name, requests])).toEqual([
      ["b", 2],
      ["a", 1],
    ]);
    expect(series.byProvider()).toMatchObject([{ name: "x", requests: 3 }]);
    clock.advance(30 * minute);
    expect(series.byModel().map(({ name }) => name)).toEqual(["b"]);
    expect(series.minutes().reduce((sum, one) => sum + one.ok, 0)).toBe(3);
    end({ at: clock.now() + 600 * minute });
    expect(series.minutes().at(-1)).toMatchObject({ ok: 0 });
    clock.advance(60 * minute);
    expect(series.byModel()).toEqual([]);
  });

  it("stays small, whatever names come", () => {
    const { series, end } = use();
    end({ model: "m".repeat(1_000_000), firstEventMs: null });
    expect(series.byModel()[0]?.name).toBe("m".repeat(128));
    for (let index = 0; index < 5000; index++) end({ model: `made-up-${index}`, firstEventMs: index });
    expect(series.byModel()).toHaveLength(101);
    expect(series.byModel()[0]).toMatchObject({ name: "other", requests: 4901 });
    expect(series.minutes().at(-1)?.first_token_p95_ms).toBe(4975);
  });
});
