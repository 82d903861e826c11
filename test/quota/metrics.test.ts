import { describe, expect, it } from "vitest";
import {
  addCharge,
  addSums,
  Amounts,
  isCharge,
  isNothing,
  noCharge,
  noSums,
  restOf,
  sumOf,
} from "../../src/quota/amounts.ts";
import type { Charge } from "../../src/quota/ledger.ts";
import { decodeLedgerRecord, encodeLedgerRecord, latestVersion } from "../../src/quota/memory/charge-record.ts";
import { countMetrics, forEachMetric, metricNames, metrics } from "../../src/quota/metrics.ts";

/** Another amount of each metric. */
function chargeOf(first: number): Charge {
  return { ...forEachMetric(metricNames, (metric) => first + metricNames.indexOf(metric)), currency: "CNY" };
}

describe.each(metricNames)("the arithmetic of %s", (metric) => {
  const [five, three] = [chargeOf(5), chargeOf(3)];

  it("adds and takes away, and never falls below 0", () => {
    const amounts = new Amounts();
    amounts.add(five);
    amounts.add(three);
    expect(amounts.of(metric, "CNY")).toBe(five[metric] + three[metric]);
    amounts.subtract(five);
    expect(amounts.of(metric, "CNY")).toBe(three[metric]);
    amounts.subtract(five);
    expect(amounts.of(metric, "CNY")).toBe(0);
  });

  it("knows sums, rests, nothing and what is no amount", () => {
    expect(sumOf(five, three)[metric]).toBe(five[metric] + three[metric]);
    expect(restOf(five, three)[metric]).toBe(2);
    expect(restOf(three, five)[metric]).toBe(0);
    expect(noCharge("CNY")[metric]).toBe(0);
    expect(isNothing(noCharge("CNY"))).toBe(true);
    expect(isNothing({ ...noCharge("CNY"), [metric]: 1 })).toBe(false);
    expect(isCharge(five)).toBe(true);
    for (const wrong of [-1, 0.5, NaN, 2 ** 53]) expect(isCharge({ ...five, [metric]: wrong })).toBe(false);
  });

  it("counts in the usage history, also below 0", () => {
    const sums = noSums();
    addCharge(sums, five, -1);
    const twice = noSums();
    addSums(twice, sums);
    addSums(twice, sums);
    expect(metric === "cost" ? twice.cost.CNY : twice[metric]).toBe(-2 * five[metric]);
  });

  it("has a column in each record", () => {
    const record = { kind: "charge", at: 1, user: "alice", requestId: "r", model: "m", charge: five } as const;
    const read = decodeLedgerRecord(encodeLedgerRecord(record));
    expect(read).toMatchObject({ kind: "charge", charge: { [metric]: five[metric], currency: "CNY" } });
  });
});

describe("amounts as people write them", () => {
  it.each(metricNames)("of %s are read and shown exactly", (metric) => {
    const { parse, parseSigned, format, toNumber } = metrics[metric];
    for (const text of ["0", "1", "17"]) expect(String(format(parse(text)))).toBe(text);
    expect(String(format(parseSigned("-17")))).toBe("-17");
    expect(toNumber(parse(17))).toBe(17);
    for (const wrong of ["", " ", "x", "-1", "0x10", "0b1", " 1", "1 ", "Infinity", "1e-20", 0.1234567891, 1e300])
      expect(() => parse(wrong)).toThrow(RangeError);
  });

  it("are whole numbers where they are counts", () => {
    for (const metric of countMetrics) expect(() => metrics[metric].parse(1.5)).toThrow(RangeError);
    expect(metrics.cost.format(metrics.cost.parse("1.5"))).toBe("1.5");
  });
});

describe("versions of records", () => {
  const first = '["charge",1,"alice","r","m",2,3,4,"CNY"]';

  it("reads those without a version, which are of the first", () => {
    const charge = { ...noCharge("CNY"), requests: 2, tokens: 3, cost: 4 };
    expect(decodeLedgerRecord(first)).toMatchObject({ kind: "charge", charge });
  });

  it("refuses those of a later one by name, and what is no version as unknown", () => {
    const later = first.replace("charge", `charge.${latestVersion + 1}`);
    expect(() => decodeLedgerRecord(later)).toThrow(
      `written by a newer version of the program: its format is ${latestVersion + 1}, and this program knows formats ` +
        `up to ${latestVersion}`,
    );
    for (const kind of ["charge.", "charge.0", "charge.x", "charge.2.2.2x", "charged"]) {
      expect(() => decodeLedgerRecord(first.replace("charge", kind))).toThrow(/unknown kind|newer/);
    }
  });
});
