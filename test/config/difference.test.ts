import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { configDifference, shownChanges } from "../../src/config/difference.ts";
import { parseConfig } from "../../src/config/load.ts";
import { maskConfig } from "../../src/config/masked.ts";

const provider = (name: string, rest: string): string =>
  `[[providers]]\nname = "${name}"\nkind = "openai"\nmodels = ["m"]\n${rest}\n`;

const difference = (before: string, after: string) =>
  configDifference(parseConfig(before, "a.toml"), parseConfig(after, "b.toml"));

describe("the difference between two configs", () => {
  it("names each value by its path, and entries of lists by their name", () => {
    const before = provider("a", "weight = 1") + provider("b", "weight = 2") + "[retry]\nattempts = 2\n";
    const after = provider("b", "weight = 3") + provider("a", "weight = 1") + "[admin]\nallow = []\n";
    expect(difference(before, after)).toEqual([
      { path: "providers.b.weight", before: 2, after: 3 },
      { path: "retry.attempts", before: 2, after: 3 },
      { path: "admin.allow", before: ["127.0.0.0/8", "::1/128"], after: [] },
    ]);
    expect(difference(before, before)).toEqual([]);
  });

  it("shows what came and what went as a whole, and dates as such", () => {
    const priced = '[[models.prices]]\nmodels = ["m"]\ncurrency = "CNY"\ncache_hit = 1\ncache_miss = 1\noutput = 1\n';
    const [gone] = difference(provider("a", ""), provider("b", ""));
    expect(gone).toMatchObject({ path: "providers.a", before: { name: "a" }, after: undefined });
    const dated = difference(priced, `${priced}valid_from = 2026-09-10\n`);
    expect(dated).toMatchObject([{ path: "models.prices.0.valid_from", before: undefined }]);
    expect(JSON.stringify(shownChanges(dated))).toContain("2026-09-10");
  });

  it("is shown in bounded length", () => {
    const changes = Array.from({ length: 300 }, (_, n) => ({ path: `p.${n}`, before: "x".repeat(9999), after: 1 }));
    const shown = shownChanges(changes);
    expect(shown).toHaveLength(200);
    expect(JSON.stringify(shown).length).toBeLessThan(200 * 600);
  });

  it("never contains a secret, wherever somebody put one", () => {
    const secret = fc.stringMatching(/^[a-zA-Z0-9]{12,24}$/);
    const place = fc.constantFrom(
      (text: string) => provider("a", `base_url = "https://user:${text}@api.example/v1"`),
      (text: string) => provider("a", `base_url = "https://api.example/v1?key=${text}"`),
      (text: string) => provider("a", `base_url = "https://api.example/v1#${text}"`),
      (text: string) => `[alerts]\nwebhook_url = "https://hooks.example/services/${text}"\n`,
      (text: string) => `[alerts]\nwebhook_url = "https://hooks.example/?token=${text}"\n`,
      (text: string) => `[models.aliases]\nm = "sk-${text}"\n`,
      (text: string) => `[models.aliases]\n"sk-${text}" = "m"\n`,
      (text: string) => `[auth]\naudience = "Bearer ${text}"\n`,
    );
    fc.assert(
      fc.property(place, place, secret, secret, (first, second, one, two) => {
        const [before, after] = [parseConfig(first(one), "a.toml"), parseConfig(second(two), "b.toml")];
        const text = JSON.stringify([
          configDifference(before, after),
          configDifference(after, before),
          configDifference(parseConfig("", "c.toml"), after),
          maskConfig(before),
        ]);
        expect(text).not.toContain(one);
        expect(text).not.toContain(two);
      }),
    );
    // Future sections may hold secrets under their own names.
    const hidden = configDifference({ state: { password: "hunter2hunter2" } }, { state: { password: "other-pass" } });
    expect(hidden).toEqual([{ path: "state.password", before: "***", after: "***" }]);
  });
});
