import { afterAll, afterEach, describe, expect, it } from "vitest";
import { answer as answerWell, closeAll, upstreamErrorOf, open, serve, setUp } from "../support/failover.ts";
import { closeRawProviders, outcomeOf, sending } from "../support/raw-provider.ts";
import { event } from "../support/read-response.ts";

const usage = { prompt_tokens: 5, completion_tokens: 1 };
const delta = (content: string, finish_reason: string | null = null, rest: object = {}): string =>
  event({ choices: [{ index: 0, delta: { content }, finish_reason }], ...rest });
const answer = [delta("Hello "), delta("你好"), delta("", "stop", { usage }), "data: [DONE]\n\n"].join("");
const whole = JSON.stringify({
  id: "c",
  object: "chat.completion",
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }],
  usage,
});

type Headers = Readonly<Record<string, string>>;

afterAll(closeRawProviders);

describe.concurrent("P8: what the provider would send in the same form again", () => {
  const rows: readonly (readonly [string, number, Headers, string | Buffer])[] = [
    ["a page", 200, { "Content-Type": "text/html" }, "<html>"],
    ["an image", 200, { "Content-Type": "image/png" }, "png"],
    ["a redirect", 302, { Location: "https://login.example/?next=1" }, ""],
    ["a redirect for good", 308, { Location: "/v2" }, ""],
    ["nothing new", 304, {}, ""],
    ["no content", 204, {}, ""],
    ["a part", 206, { "Content-Type": "text/event-stream" }, answer],
    ["an unknown coding", 200, { "Content-Type": "text/event-stream", "Content-Encoding": "zstd" }, "x"],
    ["a JSON of another kind", 200, { "Content-Type": "application/json" }, '{"ok":true}'],
    ["a JSON that is no object", 200, { "Content-Type": "application/json" }, "[1]"],
    ["a JSON without finish_reason", 200, { "Content-Type": "application/json" }, whole.replace('"stop"', "null")],
    ["a JSON that was given up", 200, { "Content-Type": "application/json" }, whole.replace("stop", "network_error")],
    ["[DONE] alone", 200, { "Content-Type": "text/event-stream" }, "data: [DONE]\n\n"],
  ];

  it.each(rows)("is asked for elsewhere only: %s", async (_, status, headers, body) => {
    const { fault } = await outcomeOf((provider) => {
      provider.head(status, headers);
      if (body.length > 0) provider.send(body);
      provider.end();
    });
    expect(fault?.rule.retry).toBe("elsewhere");
    expect(fault?.head).toMatchObject({
      status,
      contentType: headers["Content-Type"],
      location: headers.Location,
      contentEncoding: headers["Content-Encoding"],
    });
  });

  const nested = (levels: number): string =>
    whole.replace('"Hello"', `"Hello","x":${"[".repeat(levels)}${"]".repeat(levels)}`);

  it("is asked for elsewhere only: a JSON that is nested too deeply", async () => {
    const { fault } = await outcomeOf(sending(nested(200_000), { "Content-Type": "application/json" }));
    expect(fault?.rule.retry).toBe("elsewhere");
  });

  it("is asked for elsewhere only: a JSON that is nested too deeply for this version of Node", async () => {
    const { fault } = await outcomeOf(sending(nested(20_000), { "Content-Type": "application/json" }));
    expect(fault?.rule.retry).toBe(canWrite(20_000) ? undefined : "elsewhere");
  });

  it.each(["text/event-stream", "application/json"])(
    "is refused unparsed, as %s: JSON whose keys and depth would hold up everybody",
    async (type) => {
      const keys = Array.from({ length: 30_000 }, (_, at) => `"key number ${at}":1`).join(",");
      const twenty = Array.from({ length: 20 }, (_, at) => `"key number ${at}":1`).join(",");
      const frame = (json: string): string => (type === "application/json" ? json : `data: ${json}\n\n`);
      const withPart = (part: string): string => frame(whole.replace("{", `{${part},`));
      const ask = (body: string) => outcomeOf(sending(body, { "Content-Type": type }));
      for (const part of [keys, `"x":${"[".repeat(200_000)}${"]".repeat(200_000)}`]) {
        const { fault } = await ask(withPart(part));
        expect(fault?.facts).toMatchObject({
          kind: "invalid_response",
          upstreamMessage: expect.stringContaining("too many keys"),
        });
      }
      // The same keys again and again, and a large text, are fine.
      expect((await ask(withPart(`"x":[${`{${twenty}},`.repeat(2000)}1]`))).fault).toBeNull();
      expect((await ask(withPart(`"x":"${'y\\"z'.repeat(200_000)}"`))).fault).toBeNull();
    },
  );

  it.each([201, 202, 203])("is read like any answer under %i", async (status) => {
    const { fault, seen } = await outcomeOf(sending(answer, { "Content-Type": "text/event-stream" }, status));
    expect(fault).toBeNull();
    expect(seen).toContain("你好");
    const { fault: ofJson } = await outcomeOf(sending(whole, { "Content-Type": "application/json" }, status));
    expect(ofJson).toBeNull();
  });

  it.each([
    ["half a JSON", '{"choices":[{'],
    ["a JSON with an error of the server", '{"error":{"code":502,"message":"gone"}}'],
  ])("and not: %s", async (_, body) => {
    const { fault } = await outcomeOf(sending(body, { "Content-Type": "application/json" }));
    expect(fault?.rule.retry).toBe("again");
  });
});

describe("P8: a provider that answers in a wrong form", () => {
  afterEach(closeAll);

  it.each([
    ["a redirect", 302, { location: "https://login.example/" }],
    ["a page", 200, { "content-type": "text/html; charset=utf-8" }],
    ["an unknown coding", 200, { "content-type": "text/event-stream", "content-encoding": "zstd" }],
    ["a whole JSON", 200, { "content-type": "application/json" }],
  ])("is asked once, and named in the log: %s", async (_, status, headers: Headers) => {
    const bad = await serve((response) => {
      response.writeHead(status, headers).end("{}");
    });
    const good = await serve(answerWell);
    const alone = setUp();
    const fault = await upstreamErrorOf(alone.ask([open("bad", { baseUrl: bad.url })]));
    expect(fault.facts.kind).toBe("invalid_response");
    expect(bad.asked).toHaveLength(1);
    expect(alone.log.lines).toMatchObject([
      {
        level: "warn",
        facts: {
          provider: "bad",
          kind: "invalid_response",
          status,
          location: headers.location,
          content_type: headers["content-type"],
          content_encoding: headers["content-encoding"],
        },
      },
    ]);
    const { attempt } = await setUp().ask([open("bad", { baseUrl: bad.url }), open("good", { baseUrl: good.url })]);
    expect(attempt.provider.name).toBe("good");
    expect([bad.asked.length, good.asked.length]).toEqual([2, 1]);
  });
});

/** Whether JSON.stringify writes lists in each other, so many: up to Node 24 its stack is soon full. */
function canWrite(levels: number): boolean {
  try {
    JSON.stringify(JSON.parse("[".repeat(levels) + "]".repeat(levels)));
    return true;
  } catch {
    return false;
  }
}
