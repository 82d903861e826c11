import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { fortnightTable, simulateFortnight } from "./fortnight.ts";

describe("a fortnight of ten types of users", () => {
  const users = simulateFortnight(1);
  const movesOf = (name: string) => users.find((user) => user.name === name)?.moves ?? [];

  it("goes as docs/trust.md says", async () => {
    expect(await readFile("docs/trust.md", "utf8")).toContain(fortnightTable(users));
  });

  it.each(["steady", "bursty", "night-job"])("%s is never demoted, and trusted in the end", (name) => {
    expect(movesOf(name).map(({ direction, to }) => `${direction} ${to}`)).toEqual(["up normal", "up trusted"]);
  });

  it.each(["scraper", "shared-key", "aborter", "broken-client", "stolen-key"])("%s ends restricted", (name) => {
    expect(movesOf(name).at(-1)).toMatchObject({ direction: "down", to: "restricted" });
  });

  it("each way down has its reasons", () => {
    for (const { moves } of users) for (const { reasons } of moves) expect(reasons.length).toBeGreaterThan(0);
  });

  it("is the same for the same seed, and for other seeds in its outcome", () => {
    expect(simulateFortnight(1)).toEqual(users);
    const last = (seed: number) => simulateFortnight(seed).map((user) => user.last);
    expect(last(2)).toEqual(last(1));
    expect(last(3)).toEqual(last(1));
  });
});
