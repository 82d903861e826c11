import type { ServerResponse } from "node:http";
import { composeCompletion, usageOf, type Completion } from "./completion.ts";
import { Playback, planWrites, playBytewise, type StreamPlan } from "./playback.ts";
import { refuse, RefusedError } from "./refusals.ts";
import type { Script } from "./quirks.ts";
import type { SimRequest } from "./request.ts";
import { scenarios, type Pace, type Scenario } from "./scenarios.ts";
import type { Ticker } from "./ticker.ts";
import type { Envelope } from "./chat-wire.ts";
import { embeddingBody, type EmbeddingRequest } from "./embeddings.ts";
import { wires } from "./wire.ts";

/** The models that behave normally. */
export const models = ["deepseek-flash", "deepseek-v4-pro"] as const;

export interface ChatOptions {
  readonly pace: Pace;
  /** ms between `: keep-alive` comments. */
  readonly keepAliveMs: number;
  /** Wall-clock time in ms since the epoch. */
  readonly now: () => number;
  /** Monotonic time in ms. */
  readonly monotonic: () => number;
  readonly ticker: Ticker;
}

/** Responds to parsed requests. */
export interface Chat {
  /** Starts the response and returns; the ticker sends the rest. Throws RefusedError before anything is sent. */
  respond(request: SimRequest, response: ServerResponse): void;
  /** Responds to a request for embeddings, which are not streamed. */
  embed(request: EmbeddingRequest, response: ServerResponse): void;
}

/** Everything that a response is made of, whether streamed or not. */
interface Prepared {
  readonly completion: Completion;
  readonly usage: ReturnType<typeof usageOf>;
  readonly envelope: Envelope;
}

const eventStream = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  // Set explicitly, because Node would add a content-length to a response of a single write, which no provider does.
  "transfer-encoding": "chunked",
};
const normal: Scenario = {};
const maxCachedPlans = 64;
const cacheBlock = 64;
/** The late part of a script follows after a fifth of a second. */
const scriptPace: Pace = { queueMs: 0, firstTokenMs: 0, tokensPerSecond: 5 };

/** Creates the part of the simulator that generates responses. */
export function createChat(options: ChatOptions): Chat {
  const { ticker, keepAliveMs, monotonic } = options;
  const cachedPlans = new Map<string, StreamPlan>();

  function stream(request: SimRequest, scenario: Scenario, response: ServerResponse): void {
    response.writeHead(200, eventStream);
    const plan = planFor(request, scenario);
    if (scenario.bytewise) {
      playBytewise(Buffer.concat(plan.writes), response);
      return;
    }
    if (plan.writes.length !== 1 || plan.pace.tokensPerSecond > 0) response.flushHeaders();
    start(new Playback(plan, response, keepAliveMs, monotonic()), response);
  }

  function play({ status = 200, headers, body, late, ending = "end" }: Script, response: ServerResponse): void {
    response.writeHead(status, { ...eventStream, ...headers });
    const writes = [body, ...(late === undefined ? [] : [late])].map((bytes) => Buffer.from(bytes));
    const plan = { writes, pace: scriptPace, ending };
    start(new Playback(plan, response, keepAliveMs, monotonic()), response);
  }

  /** Sends blank lines while the request queues, then one JSON body. Scenarios that alter a stream don't apply here. */
  function collect(request: SimRequest, scenario: Scenario, response: ServerResponse): void {
    response.writeHead(200, { "content-type": "application/json" });
    const { completion, usage, envelope } = prepare(request, scenario);
    const pace = paceOf(request, scenario);
    const generationMs = pace.tokensPerSecond > 0 ? (usage.completion * 1000) / pace.tokensPerSecond : 0;
    const body = Buffer.from(wires[request.api].body(completion, usage, envelope));
    if (pace.queueMs + pace.firstTokenMs + generationMs === 0) {
      response.end(body);
      return;
    }
    const readyAt = monotonic() + pace.queueMs + pace.firstTokenMs + generationMs;
    let blankLineAt = monotonic() + keepAliveMs;
    const tick = (now: number): boolean => {
      if (now >= readyAt) {
        response.end(body);
        return false;
      }
      if (now >= blankLineAt) {
        blankLineAt = now + keepAliveMs;
        response.write("\n");
      }
      return true;
    };
    start({ tick }, response);
  }

  function start(task: Parameters<Ticker["add"]>[0], response: ServerResponse): void {
    if (!task.tick(monotonic())) return;
    ticker.add(task);
    response.once("close", () => {
      ticker.remove(task);
    });
  }

  /** Canned completions don't depend on the prompt's text, so their bytes are cached. */
  function planFor(request: SimRequest, scenario: Scenario): StreamPlan {
    if (scenario.completion === undefined || request.tools.length > 0) return makePlan(request, scenario);
    const key = [request.api, request.model, request.maxTokens, request.promptBytes, request.includeUsage].join("|");
    const known = cachedPlans.get(key);
    if (known !== undefined) return known;
    const plan = makePlan(request, scenario);
    if (cachedPlans.size >= maxCachedPlans) cachedPlans.clear();
    cachedPlans.set(key, plan);
    return plan;
  }

  function makePlan(request: SimRequest, scenario: Scenario): StreamPlan {
    const { completion, usage, envelope } = prepare(request, scenario);
    const pace = paceOf(request, scenario);
    const wire = wires[request.api];
    const events = wire.events(completion, usage, envelope);
    const altered = scenario.alter?.(events, request.argument, wire.overloaded) ?? events;
    return { writes: planWrites(altered, pace), pace, ending: scenario.ending ?? "end" };
  }

  function prepare(request: SimRequest, scenario: Scenario): Prepared {
    const created = Math.floor(options.now() / 1000);
    const completion = scenario.completion?.(request) ?? composeCompletion(request, thinks(request));
    const usage = usageOf(completion, request.promptBytes);
    const blocks = Math.floor((usage.prompt * (scenario.cachedShare ?? 0)) / cacheBlock);
    const envelope: Envelope = {
      id: wires[request.api].idPrefix + crypto.randomUUID(),
      created,
      model: request.model,
      dialect: scenario.dialect ?? "deepseek",
      usageMode: scenario.usageMode ?? "normal",
      includeUsage: request.includeUsage,
    };
    return { completion, usage: { ...usage, cached: blocks * cacheBlock }, envelope };
  }

  function paceOf(request: SimRequest, scenario: Scenario): Pace {
    return { ...options.pace, ...scenario.pace?.(request.argument) };
  }

  return {
    respond(request, response) {
      const scenario = scenarioFor(request);
      if (breaks(scenario, response)) return;
      if (scenario.script !== undefined) play(scenario.script(request), response);
      else if (request.stream) stream(request, scenario, response);
      else collect(request, scenario, response);
    },
    embed(request, response) {
      const scenario = scenarioFor(request);
      if (breaks(scenario, response)) return;
      if (scenario.script !== undefined) {
        play(scenario.script({ ...request, hasStreamOptions: false }), response);
        return;
      }
      response.writeHead(200, { "content-type": "application/json" });
      response.end(embeddingBody(request));
    },
  };
}

/** Whether there is no response; resets the connection if the scenario says so. */
function breaks({ connection }: Scenario, response: ServerResponse): boolean {
  if (connection === "reset") response.socket?.resetAndDestroy();
  return connection !== undefined;
}

/** Thinking is on by default for the normal models; scenario models think only on request, to keep tests short. */
function thinks({ name, thinking }: SimRequest): boolean {
  return thinking === undefined ? !scenarios.has(name) : thinking === "enabled";
}

function scenarioFor(request: Pick<SimRequest, "model" | "name" | "argument">): Scenario {
  const scenario = scenarios.get(request.name);
  if (scenario?.refusal !== undefined) throw new RefusedError(scenario.refusal(request.argument));
  if (scenario !== undefined) return scenario;
  if (models.some((model) => model === request.model)) return normal;
  throw new RefusedError(refuse(400, "invalid_request_error", "Model Not Exist"));
}
