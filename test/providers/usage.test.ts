import { describe, expect, it } from "vitest";
import { readPromptUsage, readUsage, sumOfChoices } from "../../src/providers/stream/usage.ts";

const reasoned = (reasoning_tokens: number) => ({ completion_tokens_details: { reasoning_tokens } });

describe("M7: reasoning beside the completion", () => {
  it.each([
    ["counted beside it", { prompt_tokens: 10, completion_tokens: 4, total_tokens: 94, ...reasoned(80) }, [10, 84, 80]],
    ["counted in it", { prompt_tokens: 10, completion_tokens: 84, total_tokens: 94, ...reasoned(80) }, [10, 84, 80]],
    ["none", { prompt_tokens: 10, completion_tokens: 4, total_tokens: 14 }, [10, 4, 0]],
    ["in the total alone", { prompt_tokens: 20, completion_tokens: 198, total_tokens: 623 }, [20, 603, 405]],
    ["in the total alone, of a response", { input_tokens: 20, output_tokens: 0, total_tokens: 81 }, [20, 61, 61]],
    ["a total below both", { prompt_tokens: 10, completion_tokens: 4, total_tokens: 12 }, [10, 4, 0]],
    [
      "a total that fits nothing",
      { prompt_tokens: 10, completion_tokens: 4, total_tokens: 50, ...reasoned(3) },
      [10, 4, 3],
    ],
    ["no total", { prompt_tokens: 10, completion_tokens: 4, ...reasoned(80) }, [10, 4, 4]],
    [
      "no completion but reasoning",
      { prompt_tokens: 10, completion_tokens: 0, total_tokens: 90, ...reasoned(80) },
      [10, 80, 80],
    ],
  ])("%s", (_, usage, [input, output, reasoning]) => {
    expect(readUsage(usage)).toEqual({ input, output, reasoning, cached: 0 });
  });
});

describe("M8: any consistent report is believed", () => {
  it.each([
    ["Anthropic's names", { input_tokens: 3, output_tokens: 4 }, [3, 4, 0]],
    ["no completion", { prompt_tokens: 3, total_tokens: 7 }, [3, 4, 0]],
    ["no prompt", { completion_tokens: 4, total_tokens: 7 }, [3, 4, 0]],
    ["DeepSeek's cache", { prompt_tokens: 3, completion_tokens: 4, prompt_cache_hit_tokens: 2 }, [3, 4, 2]],
    [
      "OpenAI's cache",
      { prompt_tokens: 3, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 2 } },
      [3, 4, 2],
    ],
    ["Moonshot's cache", { prompt_tokens: 3, completion_tokens: 4, cached_tokens: 2 }, [3, 4, 2]],
    ["more cached than asked", { prompt_tokens: 3, completion_tokens: 4, cached_tokens: 9 }, [3, 4, 3]],
  ])("%s", (_, usage, [input, output, cached]) => {
    expect(readUsage(usage)).toEqual({ input, output, cached, reasoning: 0 });
  });

  it.each([
    ["Anthropic's cache, read", { cache_read_input_tokens: 1000, cached_tokens: 1 }],
    ["Anthropic's cache, written", { cache_creation_input_tokens: 1000, cached_tokens: 1 }],
    ["a cache that is larger than the prompt", { cached_tokens: 1000 }],
  ])("tokens of %s are no output, though the total has them", (_, cache) => {
    const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 1007, ...cache };
    expect(readUsage(usage)).toMatchObject({ input: 3, output: 4, reasoning: 0 });
  });

  it.each([
    ["a total alone", { total_tokens: 7 }],
    ["a total below its part", { prompt_tokens: 9, total_tokens: 7 }],
    ["texts", { prompt_tokens: "3", completion_tokens: "4" }],
    ["nothing", {}],
    ["no object", 7],
    ["null", null],
  ])("%s is no report", (_, usage) => {
    expect(readUsage(usage)).toBeNull();
  });

  it.each([
    [{ total_tokens: 21 }, 21, 0],
    [{ prompt_tokens: 20, total_tokens: 21 }, 20, 0],
    [{ input_tokens: 20 }, 20, 0],
    [{ completion_tokens: 1, total_tokens: 21 }, 20, 1],
  ])("the prompt of embeddings is told by %j", (usage, input, output) => {
    expect(readPromptUsage(usage)).toEqual({ input, cached: 0, output, reasoning: 0 });
  });

  it.each([[{}], [{ total_tokens: -1 }], [null]])("the prompt of embeddings is not told by %j", (usage) => {
    expect(readPromptUsage(usage)).toBeNull();
  });

  it("is the prompt once and all outputs where each choice has its own", () => {
    const usage = { input: 10, cached: 4, output: 3, reasoning: 1 };
    expect(sumOfChoices([usage, { ...usage, output: 5 }])).toEqual({ input: 10, cached: 4, output: 8, reasoning: 2 });
  });
});
