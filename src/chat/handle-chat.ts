import { AppError } from "../errors.ts";
import type { Emit } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { LimitRefusal, Limiter } from "../limits/limiter.ts";
import type { Permits } from "../limits/permits.ts";
import type { Ledger, Limit } from "../quota/ledger.ts";
import type { Dispatch } from "../upstream/dispatch.ts";
import type { Router } from "../upstream/router.ts";
import { firstCharge, nothingOwed, settlement, upperBound } from "./charges.ts";
import { parseChatRequest } from "./chat-request.ts";
import { ChatRun, type ChatCall } from "./chat-run.ts";
import { collectAnswer } from "./collect-answer.ts";
import { endingOfError, type Ending } from "./ending.ts";
import { refusalEvent } from "./refusal-event.ts";
import { relay } from "./relay.ts";

export interface ChatDeps {
  readonly router: Router;
  readonly limiter: Limiter;
  readonly permits: Permits;
  readonly ledger: Ledger;
  readonly dispatch: Dispatch;
  readonly limitsOf: (tier: string) => readonly Limit[];
  readonly emit: Emit;
  readonly clock: Clock;
  readonly newId: () => string;
  readonly log: Log;
  /** For accounts that don't say. */
  readonly maxParallel: number;
  readonly heartbeatMs: number;
  readonly warnPercent: number;
  readonly currency: string;
}

export interface Chat {
  /** Serves one chat. Throws AppError where nothing has been sent yet; then the caller answers. */
  handle(call: ChatCall): Promise<void>;
  /** Chats running now. */
  running(): number;
  /** Resolves when no chat runs. */
  whenIdle(): Promise<void>;
  /** Ends all running chats: each gets an error event and is charged for what it was given. */
  cutAll(): void;
}

/** The story of a chat request. Whatever happens in it, it leaves through the same door: settle, release, tell. */
export function createChat(deps: ChatDeps): Chat {
  const { currency } = deps;
  const runs = new Set<ChatRun>();
  let idleWaiters: (() => void)[] = [];

  async function handle(call: ChatCall): Promise<void> {
    const run = new ChatRun(call, deps);
    runs.add(run);
    let ending: Ending;
    try {
      ending = await serve(run);
    } catch (error) {
      ending = endingOfError(error, call.client.departed);
    }
    // The charge is final and the permit free before the client hears of the end: its next request finds both so.
    await settle(run, ending);
    runs.delete(run);
    if (runs.size === 0) wakeIdleWaiters();
    answer(run, ending);
  }

  async function serve(run: ChatRun): Promise<Ending> {
    const { account, body, ip, client, streamByDefault } = run.call;
    const user = account.username;

    const request = (run.request = parseChatRequest(body, streamByDefault));
    const route = deps.router.resolve(request.model);

    const refusal = await deps.limiter.take({ user, ip, model: request.model });
    if (refusal !== null) throw rateLimited(refusal);

    run.permit = await deps.permits.acquire({ user, max: account.max_parallel ?? deps.maxParallel }, client);
    run.hold = await deps.ledger.reserve({
      user,
      limits: deps.limitsOf(account.quota_tier),
      requestId: deps.newId(),
      model: request.model,
      upperBound: upperBound(request, currency),
      firstCharge: firstCharge(request, currency),
    });

    if (request.stream) client.startHeartbeat(deps.heartbeatMs, run);
    run.answer = await deps.dispatch(route, request, client, client.traceId);

    // The first data event is here, and nobody has seen it yet: now it is charged, then shown.
    await run.hold.commit();
    const { exchange } = run.answer;
    if (request.stream) {
      client.open(run);
      return relay(exchange, client, request.wantsUsageChunk);
    }
    const { ending, completion } = await collectAnswer(exchange, client);
    run.completion = completion;
    return ending;
  }

  /** The one exit of the money: exactly once, whatever the ending. */
  async function settle(run: ChatRun, ending: Ending): Promise<void> {
    const { hold, request, answer } = run;
    run.settlement =
      hold?.committed === true && request !== null && answer !== null
        ? settlement(ending.outcome, request, answer.exchange.reader, currency)
        : nothingOwed(ending.outcome, currency);
    await hold?.settle(run.settlement);
    run.permit?.release();
    answer?.exchange.cancel(new Error("the chat is over"));
    const refusal =
      ending.outcome === "refused" && ending.error !== null ? refusalEvent(run, ending.error, deps.clock.now()) : null;
    if (refusal !== null) deps.emit(refusal);
    deps.emit(run.finished(ending));
  }

  /** What the client sees of the ending. */
  function answer(run: ChatRun, ending: Ending): void {
    const { client } = run.call;
    if (ending.error?.code === "internal_error") {
      deps.log.error({ trace_id: client.traceId, err: ending.error.cause }, "a chat failed for a reason of our own");
    }
    if (client.opened) client.finish(ending.error);
    else if (ending.error !== null) {
      client.release();
      throw ending.error;
    } else if (run.completion !== null) client.sendJson(run.completion, run);
    else client.abandon();
  }

  function wakeIdleWaiters(): void {
    const waiters = idleWaiters;
    idleWaiters = [];
    for (const wake of waiters) wake();
  }

  return {
    handle,
    running: () => runs.size,
    whenIdle() {
      if (runs.size === 0) return Promise.resolve();
      return new Promise((resolve) => idleWaiters.push(resolve));
    },
    cutAll() {
      for (const run of runs) run.call.client.depart("shutdown");
    },
  };
}

function rateLimited({ rule, retryAfterMs }: LimitRefusal): AppError {
  return new AppError("rate_limited", { retryAfterSeconds: retryAfterMs / 1000, details: { rule } });
}
