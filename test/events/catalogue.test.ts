import { describe, expect, it } from "vitest";
import { alertTypes, catalogue, defaultAlerts } from "../../src/events/catalogue.ts";

const types = Object.keys(catalogue) as (keyof typeof catalogue)[];

describe("the catalogue of events", () => {
  it("names what may be an alert, and what is one by default", () => {
    expect(defaultAlerts).toEqual([
      "login.locked",
      "login.unlocked",
      "session.reuse_detected",
      "provider.alert",
      "overload.began",
    ]);
    expect([...alertTypes].sort()).toEqual([
      "admin.changed",
      "api_key.created",
      "config.rejected",
      "config.reloaded",
      "events.lost",
      "login.failed",
      "login.locked",
      "login.succeeded",
      "login.unlocked",
      "overload.began",
      "overload.ended",
      "password.changed",
      "provider.alert",
      "quota.exceeded",
      "session.reuse_detected",
      "trust.changed",
      "user.registered",
    ]);
  });

  it("writes every event somewhere: in the log, in a behaviour log, or as a count", () => {
    const nowhere = types.filter((type) => {
      const { log, behaviour, counts } = catalogue[type];
      return log === null && !behaviour && counts === undefined;
    });
    // Counted in metrics.ts, by route and code.
    expect(nowhere).toEqual(["request.finished"]);
  });

  it("logs what an operator should look at above info", () => {
    const loud = types.filter((type) => !["info", undefined].includes(catalogue[type].log?.level));
    expect(loud).toEqual([
      "login.locked",
      "session.reuse_detected",
      "provider.alert",
      "config.rejected",
      "overload.began",
      "events.lost",
    ]);
  });
});
