import { describe, expect, it, onTestFinished } from "vitest";
import { createModelList, type ModelList } from "../../src/providers/model-list.ts";
import { createManualClock, type ManualClock } from "../support/manual-clock.ts";
import { testProvider } from "../support/provider.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";

const listOf = (...ids: readonly unknown[]): object => ({ object: "list", data: ids.map((id) => ({ id })) });

interface Listed {
  readonly models: ModelList;
  readonly clock: ManualClock;
  readonly upstreams: readonly ScriptedUpstream[];
  ids(): Promise<readonly string[]>;
}

/** A list over so many providers of the kind openai, which has no known models. */
async function listOver(count: number): Promise<Listed> {
  const upstreams = await Promise.all(Array.from({ length: count }, () => startScriptedUpstream()));
  const clock = createManualClock();
  const providers = upstreams.map(({ url }, index) => testProvider(`p${index}`, { kind: "openai", baseUrl: url }));
  onTestFinished(async () => {
    await Promise.all(upstreams.map((one) => one.close()));
    await Promise.all(providers.map(({ dispatcher }) => dispatcher.destroy()));
  });
  const models = createModelList({ providers, aliases: {}, clock });
  return { models, clock, upstreams, ids: async () => (await models.list()).map(({ id }) => id) };
}

async function answer({ upstreams: [upstream] }: Listed, status: number, body: unknown): Promise<void> {
  (await upstream?.next())?.respond(status, body);
}

describe("a list of models", () => {
  it.each([
    ["fails", 500, { error: { message: "busy" } }],
    ["refuses the key", 401, "no"],
    ["has no list any more", 404, "no"],
    ["answers with an error", 200, { error: { message: "busy" } }],
    ["answers with no JSON", 200, "<html>"],
    ["answers with something else", 200, { data: { a: 1 } }],
  ])("has what a provider listed last where it %s", async (_what, status, body) => {
    const list = await listOver(1);
    const first = list.ids();
    await answer(list, 200, listOf("one", "two"));
    expect(await first).toEqual(["one", "two"]);
    list.clock.advance(61_000);
    const second = list.ids();
    await answer(list, status, body);
    expect(await second).toEqual(["one", "two"]);
    expect(list.models.served()).toEqual(["one", "two"]);
  });

  it("is empty where a provider says so", async () => {
    const list = await listOver(1);
    const first = list.ids();
    await answer(list, 200, listOf("one"));
    expect(await first).toEqual(["one"]);
    list.clock.advance(61_000);
    const second = list.ids();
    await answer(list, 200, listOf());
    expect(await second).toEqual([]);
  });

  it("has no names that a request can't have", async () => {
    const list = await listOver(1);
    const ids = list.ids();
    await answer(list, 200, listOf("", "one", 5, null, "half\ud83d", "x".repeat(201), "x".repeat(200)));
    expect(await ids).toEqual(["one", "x".repeat(200)]);
  });

  it("asks all providers at once", async () => {
    const list = await listOver(3);
    const ids = list.ids();
    const calls = await Promise.all(list.upstreams.map((upstream) => upstream.next()));
    for (const [index, call] of calls.entries()) call.respond(200, listOf(`m${index}`));
    expect(await ids).toEqual(["m0", "m1", "m2"]);
  });

  it("has what a provider listed last while it does not answer", async () => {
    const list = await listOver(1);
    const first = list.ids();
    await answer(list, 200, listOf("one"));
    await first;
    list.clock.advance(61_000);
    const second = list.ids();
    const call = await list.upstreams[0]?.next();
    expect(await second).toEqual(["one"]);
    expect(call?.left).toBe(false);
  });
});
