import type { Account } from "../accounts/account-schema.ts";
import type { ApiKey } from "../accounts/keys/api-key.ts";
import type { ChatFinished } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { JsonObject } from "../lib/json-object.ts";
import type { Slotted } from "../lib/slot-set.ts";
import type { Permit } from "../limits/permits.ts";
import type { Hold, Settlement } from "../quota/ledger.ts";
import type { Answer } from "../upstream/dispatch.ts";
import type { Provider } from "../upstream/providers/provider.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import type { ApiShape } from "./api-shape.ts";
import type { Bill } from "./bill.ts";
import type { ChatRequest } from "./chat-request.ts";
import type { Client, HeaderSource } from "./client.ts";
import type { Drain } from "./drain.ts";
import type { Ending } from "./ending.ts";
import type { Meter } from "./meter.ts";
import { addQuotaHeaders } from "./quota-headers.ts";

/** One request to an API, authenticated. */
export interface ChatCall {
  readonly account: Account;
  /** The API key that it came with; null for an access token. */
  readonly apiKey: Pick<ApiKey, "id" | "limits" | "allowsModel"> | null;
  /** The client's address. */
  readonly ip: string;
  readonly body: JsonObject;
  readonly shape: ApiShape;
  /** What an absent `stream` means on this route. */
  readonly streamByDefault: boolean;
  /** Whether a client that gets one JSON wants, of an answer that broke off, what had arrived. */
  readonly wantsPartial: boolean;
  readonly client: Client;
}

interface RunOptions {
  readonly clock: Clock;
  readonly warnPercent: number;
  /** As createIsoTime makes it. */
  readonly isoTime: (ms: number) => string;
}

/** What one chat has come to hold on its way through the story; filled in from top to bottom. */
export class ChatRun implements HeaderSource, Slotted {
  slot = -1;
  readonly call: ChatCall;
  request: ChatRequest | null = null;
  permit: Permit | null = null;
  bill: Bill | null = null;
  hold: Hold | null = null;
  answer: Answer | null = null;
  /** The provider that was at work when the client left before the first event. */
  abandoned: Provider | null = null;
  meter: Meter | null = null;
  /** While an answer is followed whose client has left. */
  drain: Drain | null = null;
  /** The collected JSON, where one was asked for and is complete. */
  completion: string | Buffer | null = null;
  settlement: Settlement | null = null;
  readonly #options: RunOptions;
  readonly #startedAt: number;

  constructor(call: ChatCall, options: RunOptions) {
    this.call = call;
    this.#options = options;
    this.#startedAt = options.clock.monotonic();
  }

  /** The X-Quota headers as things stand now. */
  addHeaders(to: string[]): void {
    const { warnPercent, isoTime } = this.#options;
    if (this.hold !== null) addQuotaHeaders(to, this.hold.buckets(), warnPercent, isoTime);
  }

  /** The one event that tells of this chat. */
  finished(ending: Ending): ChatFinished {
    const { account, ip, client } = this.call;
    const { request, answer, settlement } = this;
    const { clock } = this.#options;
    const cause = ending.error?.extras.cause;
    const fault = cause instanceof UpstreamFault ? cause : null;
    const owed = settlement?.charge;
    const usage = settlement?.usage;
    return {
      type: "chat.finished",
      at: clock.now(),
      traceId: client.traceId,
      ip,
      user: account.username,
      keyId: this.call.apiKey?.id ?? "",
      api: request?.api ?? "",
      model: request?.model ?? "",
      provider: (answer?.exchange.provider ?? this.abandoned)?.name ?? fault?.provider ?? "",
      stream: request?.stream ?? this.call.streamByDefault,
      outcome: ending.outcome,
      code: ending.error?.code ?? (ending.outcome === "completed" ? "ok" : ending.outcome),
      status: client.opened ? 200 : (ending.error?.status ?? (ending.outcome === "completed" ? 200 : 0)),
      requests: owed?.requests ?? 0,
      inputTokens: usage?.input ?? 0,
      cachedTokens: usage?.cached ?? 0,
      outputTokens: usage?.output ?? 0,
      reasoningTokens: usage?.reasoning ?? 0,
      cost: owed?.cost ?? 0,
      currency: owed?.currency ?? "",
      estimated: settlement?.estimated ?? false,
      firstEventMs: answer?.exchange.firstEventMs ?? null,
      generationMs: answer?.exchange.generationMs() ?? null,
      durationMs: clock.monotonic() - this.#startedAt,
      retries: answer?.retries ?? Math.max(0, (fault?.attempts ?? 0) - 1),
    };
  }
}
