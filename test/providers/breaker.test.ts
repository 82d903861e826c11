import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { Breaker, refused } from "../../src/providers/breaker.ts";

const rule = { failures: 3, windowMs: 100, openMs: 50 };

function failTimes(breaker: Breaker, times: number, now = 0): void {
  for (let i = 0; i < times; i++) breaker.failed(breaker.enter(now), now);
}

describe("a circuit breaker", () => {
  it("opens at its number of failures in one window, and lets nobody through while it is open", () => {
    const breaker = new Breaker(rule);
    failTimes(breaker, 2);
    expect(breaker.state(0)).toBe("closed");
    failTimes(breaker, 1);
    expect(breaker.state(0)).toBe("open");
    expect(breaker.enter(49)).toBe(refused);
    expect(breaker.waitMs(20)).toBe(30);
  });

  it("forgets failures that are longer ago than its window", () => {
    const breaker = new Breaker(rule);
    failTimes(breaker, 2, 0);
    failTimes(breaker, 2, 100);
    expect(breaker.state(100)).toBe("closed");
    failTimes(breaker, 1, 199);
    expect(breaker.state(199)).toBe("open");
  });

  it("stays closed while less than half of the answers fail", () => {
    const breaker = new Breaker(rule);
    for (let i = 0; i < 100; i++) {
      breaker.failed(breaker.enter(0), 0);
      breaker.succeeded(breaker.enter(0));
      breaker.succeeded(breaker.enter(0));
    }
    expect(breaker.state(0)).toBe("closed");
  });

  it("opens on a provider whose every answer begins well and then breaks", () => {
    const breaker = new Breaker(rule);
    for (let i = 0; i < 3; i++) {
      const ticket = breaker.enter(0);
      breaker.succeeded(ticket);
      breaker.failed(ticket, 0);
    }
    expect(breaker.state(0)).toBe("open");
  });

  it("lets exactly one probe through when its time is up, whose success closes it", () => {
    const breaker = new Breaker(rule);
    failTimes(breaker, 3);
    expect(breaker.state(50)).toBe("half_open");
    const probe = breaker.enter(50);
    expect(probe).toBeGreaterThan(0);
    expect(breaker.enter(50)).toBe(refused);
    expect(breaker.enter(1e9)).toBe(refused);
    breaker.succeeded(probe);
    expect(breaker.state(50)).toBe("closed");
    expect(breaker.enter(50)).toBe(0);
  });

  it("opens again, for as long, when the probe fails", () => {
    const breaker = new Breaker(rule);
    failTimes(breaker, 3);
    breaker.failed(breaker.enter(60), 60);
    expect(breaker.enter(109)).toBe(refused);
    expect(breaker.enter(110)).not.toBe(refused);
  });

  it("lets another probe in where the first one left without a verdict", () => {
    const breaker = new Breaker(rule);
    failTimes(breaker, 3);
    const first = breaker.enter(50);
    breaker.abandoned(first);
    const second = breaker.enter(50);
    expect(second).not.toBe(refused);
    // The first one is no longer the probe, whatever it says.
    breaker.succeeded(first);
    breaker.abandoned(first);
    expect(breaker.state(50)).toBe("half_open");
    expect(breaker.enter(50)).toBe(refused);
  });

  it("heeds no late word of a request from before it opened", () => {
    const breaker = new Breaker(rule);
    const early = breaker.enter(0);
    failTimes(breaker, 3);
    const probe = breaker.enter(50);
    breaker.succeeded(early);
    breaker.failed(early, 50);
    breaker.abandoned(early);
    expect(breaker.state(50)).toBe("half_open");
    expect(breaker.enter(50)).toBe(refused);
    breaker.succeeded(probe);
    expect(breaker.state(50)).toBe("closed");
  });

  it("never has two probes out, never lets anyone through while open, and always comes back", () => {
    const step = fc.record({
      act: fc.constantFrom("enter", "succeed", "fail", "leave", "wait"),
      pick: fc.nat(),
      ms: fc.integer({ min: 0, max: 80 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const breaker = new Breaker(rule);
        let now = 0;
        let probe = 0;
        const out: number[] = [];
        for (const { act, pick, ms } of steps) {
          const before = breaker.state(now);
          if (act === "wait") now += ms;
          else if (act === "enter") {
            const ticket = breaker.enter(now);
            if (before === "open") expect(ticket).toBe(refused);
            if (before === "closed") expect(ticket).toBe(0);
            if (before === "half_open") expect(ticket === refused).toBe(probe !== 0);
            if (ticket > 0) probe = ticket;
            if (ticket !== refused) out.push(ticket);
          } else if (out.length > 0) {
            const [ticket = 0] = out.splice(pick % out.length, 1);
            if (act === "succeed") breaker.succeeded(ticket);
            else if (act === "fail") breaker.failed(ticket, now);
            else breaker.abandoned(ticket);
            if (ticket === probe) probe = 0;
            else if (before !== "closed") expect(breaker.state(now)).toBe(before);
          }
        }
        // Once all of them have left, somebody gets through.
        for (const ticket of out) breaker.abandoned(ticket);
        expect(breaker.enter(now + rule.openMs)).not.toBe(refused);
      }),
    );
  });
});
