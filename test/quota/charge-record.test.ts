import { describe, expect, it } from "vitest";
import { decodeLedgerRecord, encodeLedgerRecord, type LedgerRecord } from "../../src/quota/memory/charge-record.ts";
import { charge } from "../support/ledger.ts";

const common = { at: 1000, user: "alice", requestId: "r1", model: "m" } as const;
const key = { apiKey: "k1" };
const group = { group: { name: "red", at: 1001 } };
const from = { from: { log: "07.a", seq: 5 } };
const usage = { input: 3, cached: 1, output: 2, reasoning: 1 };
const ended = { settledAt: 1002, first: charge(1, 3), final: charge(1, 5, 7), usage, outcome: "completed" } as const;

const charged = (more: object): LedgerRecord => ({ ...common, kind: "charge", charge: charge(1, 3, 4), ...more });
const settled = (more: object): LedgerRecord => ({
  ...common,
  kind: "settle",
  ...ended,
  estimated: false,
  price: "m@always 0/1/4/4",
  ...more,
});

/** A record without the fields that are undefined. */
const present = (record: LedgerRecord | undefined): unknown => JSON.parse(JSON.stringify(record));

describe("records that name the provider", () => {
  const sources = [{}, key, group, { ...key, ...group }, from, { ...key, ...group, ...from }];

  it.each(sources)("are read as they were written: %o", (source) => {
    for (const record of [
      charged({ ...source, provider: "deep", price: "m@always 0/1/4/4" }),
      charged({ ...source, provider: "deep", price: "" }),
      settled({ ...source, provider: "deep" }),
    ]) {
      const text = encodeLedgerRecord(record);
      expect(text).toMatch(/^\["(charge|settle)\.4"/);
      expect(present(decodeLedgerRecord(text))).toEqual(present(record));
    }
  });

  it.each(sources)("are of the versions that there were before where it is not known: %o", (source) => {
    const version = "from" in source ? ".3" : "group" in source ? ".2" : "";
    for (const record of [charged(source), settled(source)]) {
      const text = encodeLedgerRecord(record);
      expect(text.startsWith(`["${record.kind}${version}",`)).toBe(true);
      expect(present(decodeLedgerRecord(text))).toEqual(present(record));
    }
  });

  it("have no columns behind those that they should have", () => {
    const text = encodeLedgerRecord(settled({ provider: "deep" }));
    expect(() => decodeLedgerRecord(`${text.slice(0, -1)},"x"]`)).toThrow();
    expect(() => decodeLedgerRecord(text.replace("settle.4", "settle.2"))).toThrow();
  });

  it("of the last release are read", () => {
    const old =
      '["settle.2",1000,"alice","r1","m",1,3,0,"CNY",1,5,7,"CNY",3,1,2,1,"completed",0,1002,"p","k1","red",1001]';
    expect(present(decodeLedgerRecord(old))).toEqual(
      present(settled({ ...key, ...group, first: charge(1, 3), final: charge(1, 5, 7), price: "p" })),
    );
  });
});
