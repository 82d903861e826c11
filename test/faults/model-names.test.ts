import { fc } from "../support/fast-check.ts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createKnownModels } from "../../src/providers/model-list.ts";
import { createRouter } from "../../src/providers/router.ts";
import { problemsOf } from "../config/support.ts";
import { jsonOf } from "../support/accounts.ts";
import { startCountingUpstream, type CountingUpstream } from "../support/counting-upstream.ts";
import { testProvider } from "../support/provider.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

describe("H9: glob aliases", () => {
  const provider = testProvider("one", {
    models: ["m", "special", "cl-listed"],
    modelMap: { m: "their-m", "own-*": "mapped", "own-big*": "big" },
  });
  const aliases = { "cl-*": "m", "cl-opus*": "special", "cl-opus-1": "m" };
  const knownModels = createKnownModels({ configured: [], listed: () => [], mayServe: () => false });
  const router = createRouter({ providers: [provider], aliases, knownModels, random: () => 0 });

  it.each([
    ["cl-sonnet", "m", "their-m"],
    ["cl-opus-4[1m]", "special", "special"],
    ["cl-opus-1", "m", "their-m"],
    ["cl-listed", "cl-listed", "cl-listed"],
    ["own-small", "own-small", "mapped"],
    ["own-big-1", "own-big-1", "big"],
  ])("%s is %s, and %s at the provider", (model, upstreamModel, own) => {
    const route = router.resolve(model, "chat");
    expect(route).toMatchObject({ model, upstreamModel });
    expect(route.candidates[0]?.ownName(route.upstreamModel)).toBe(own);
  });

  it("are refused where the name of one model is meant", () => {
    expect(problemsOf('[models]\naliases = { "cl-*" = "m-*" }')).toEqual([
      'models.aliases.cl-*: expected the name of a model, without *, got text "m-*"',
    ]);
  });
});

/** All white space that Unicode has, and some of what is not seen. */
const blanks = Array.from({ length: 0x10000 }, (_, code) => String.fromCharCode(code)).filter((char) =>
  /[\p{White_Space}\ufeff\u200b\u200e\u001f\0]/u.test(char),
);

describe("M3: a known name, misspelled", () => {
  it("is known by its letters, whatever their case and the white space around them", () => {
    const known = createKnownModels({
      configured: ["tin-5", "Größe/Kelvin-K", "glob-*"],
      listed: () => ["listed"],
      mayServe: () => false,
    });
    expect(blanks.length).toBeGreaterThan(25);
    const blank = fc.array(fc.constantFrom(...blanks), { maxLength: 4 }).map((all) => all.join(""));
    const names = fc.constantFrom("tin-5", "Größe/Kelvin-K", "listed");
    fc.assert(
      fc.property(names, blank, blank, fc.infiniteStream(fc.boolean()), (name, before, after, upper) => {
        const letters = Array.from(name, (letter) =>
          upper.next().value ? letter.toUpperCase() : letter.toLowerCase(),
        );
        const spelled = before + letters.join("") + after;
        expect(known.nearest(spelled)).toBe(spelled === name ? undefined : name);
      }),
    );
  });

  it.each(["tin-6", "tin", "tin -5", "t\u0456n-5", "glob-x", "Glob-*", "", "  "])("is not %j", (name) => {
    expect(
      createKnownModels({ configured: ["tin-5", "glob-*"], listed: () => [], mayServe: () => false }).nearest(name),
    ).toBeUndefined();
  });

  it("is no misspelling where it is known itself, and follows what providers list", () => {
    let listed: readonly string[] = [];
    const known = createKnownModels({ configured: ["tin-5", "TIN-5"], listed: () => listed, mayServe: () => false });
    expect([known.nearest("TIN-5"), known.nearest("Tin-5"), known.nearest("Lead")]).toEqual([
      undefined,
      "tin-5",
      undefined,
    ]);
    listed = ["lead", "Tin-5"];
    expect([known.nearest("Tin-5"), known.nearest("Lead"), known.nearest("lead")]).toEqual([
      undefined,
      "lead",
      undefined,
    ]);
  });

  describe("is refused", () => {
    let upstream: CountingUpstream;
    let proxy: RunningProxy;
    let token: string;
    const closers: (() => Promise<void>)[] = [];

    beforeAll(async () => {
      upstream = await startCountingUpstream((end) => void closers.push(end));
      upstream.models = ["Listed-1"];
      proxy = await startProxy({
        env: { DEEPSEEK_API_KEY: "sk-test" },
        config: `
[[providers]]
name = "upstream"
kind = "openai"
base_url = "${upstream.url}"
api_key_env = "DEEPSEEK_API_KEY"
models = ["tin-5", "*"]
model_map = { mapped = "Their-Own" }
[models]
aliases = { nick = "target", "glob-*" = "globbed" }
weights = { heavy = 5 }
[[models.prices]]
models = ["priced", "all-*"]
currency = "CNY"
cache_hit = 1
cache_miss = 1
output = 1
`,
      });
      closers.push(() => proxy.dispose());
      token = await proxy.login();
    });
    afterAll(async () => {
      for (const end of closers.reverse()) await end();
    });

    const ask = (model: string, as = token) =>
      jsonOf(
        post(`${proxy.url}/v1/chat/completions`, { model, messages: [{ role: "user", content: "hi" }] }, bearer(as)),
      );
    const refused = (nearest: string) => ({
      status: 404,
      body: {
        error: {
          code: "model_not_found",
          param: "model",
          message: expect.stringContaining(JSON.stringify(nearest)),
          details: { nearest },
        },
      },
    });

    it.each([
      ["Tin-5", "tin-5"],
      [" tin-5", "tin-5"],
      ["tin-5\u3000", "tin-5"],
      ["\u0085TIN-5\ufeff", "tin-5"],
      ["Nick", "nick"],
      ["TARGET", "target"],
      ["globbed ", "globbed"],
      ["MAPPED", "mapped"],
      ["their-own", "Their-Own"],
      ["Priced", "priced"],
      ["HEAVY", "heavy"],
    ])("by any name in the config: %j for %j", async (model, nearest) => {
      const asked = upstream.asked.length;
      expect(await ask(model)).toMatchObject(refused(nearest));
      expect(upstream.asked).toHaveLength(asked);
      expect((await ask(nearest)).status).toBe(200);
    });

    it.each(["\ud800", "tin-\udc00", "\ud83d\ud83d\ude00"])(
      "%j, half a character of which would be lost in files",
      async (name) => {
        const asked = upstream.asked.length;
        const invalid = { status: 400, body: { error: { code: "invalid_request", param: "model" } } };
        expect(await ask(name)).toMatchObject(invalid);
        expect(upstream.asked).toHaveLength(asked);
        expect((await ask("\ud83d\ude00")).status).toBe(200);
      },
    );

    it("by what the provider lists, once that is known", async () => {
      expect((await ask("listed-1")).status).toBe(200);
      await fetch(`${proxy.url}/v1/models`, { headers: bearer(token) });
      expect(await ask("listed-1")).toMatchObject(refused("Listed-1"));
      expect((await ask("Listed-1")).status).toBe(200);
    });

    it("through an API key too, which learns only of models in its scope", async () => {
      const keyFor = async (models: readonly string[]): Promise<string> => {
        const made = await jsonOf<{ key: string }>(
          post(`${proxy.url}/auth/keys`, { name: "x", models }, bearer(token)),
        );
        expect(made.status).toBe(201);
        return made.body.key;
      };
      expect(await ask(" Tin-5", await keyFor(["tin-*"]))).toMatchObject(refused("tin-5"));
      expect(await ask("Tin-5", await keyFor(["T*", "tin-5"]))).toMatchObject(refused("tin-5"));
      const forbidden = { status: 403, body: { error: { code: "forbidden", param: "model" } } };
      expect(await ask("Tin-5", await keyFor(["priced"]))).toMatchObject(forbidden);
      expect(await ask("tin-5", await keyFor(["priced"]))).toMatchObject(forbidden);
    });

    it("in the scope of a new API key", async () => {
      const make = (models: readonly string[]) =>
        jsonOf(post(`${proxy.url}/auth/keys`, { name: "x", models }, bearer(token)));
      expect(await make(["priced", "Tin-5"])).toMatchObject({
        status: 400,
        body: { error: { code: "invalid_request", param: "models.1", message: expect.stringContaining('"tin-5"') } },
      });
      expect((await make(["tin-5", "Tin-*", "new"])).status).toBe(201);
    });
  });
});
