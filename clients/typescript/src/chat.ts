import { errorInBody, errorOfResponse, isRecord, parsed, ProxyError, UnavailableError } from "./errors.ts";
import { eventsOf } from "./events.ts";
import { connectionError, type RetryNotice, type RetryPolicy, withRetries } from "./retry.ts";

/** A chat request in OpenAI's shape; fields beyond these are passed on. */
export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly object[];
  readonly [field: string]: unknown;
}

/** A chunk in OpenAI's shape. */
export interface ChatChunk {
  readonly id?: string;
  readonly model?: string;
  readonly choices?: readonly {
    readonly index?: number;
    readonly delta?: {
      readonly role?: string;
      readonly content?: string | null;
      readonly reasoning_content?: string | null;
      readonly [field: string]: unknown;
    };
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: ChatUsage | null;
  readonly [field: string]: unknown;
}

/** The tokens of a request. */
export interface ChatUsage {
  readonly prompt_tokens?: number;
  readonly completion_tokens?: number;
  readonly total_tokens?: number;
  readonly [field: string]: unknown;
}

/** What to tell while a chat runs. An exception in one of them ends the chat. */
export interface ChatCallbacks {
  readonly onToken?: (text: string) => void;
  readonly onReasoning?: (text: string) => void;
  readonly onUsage?: (usage: ChatUsage) => void;
  /** The text of X-Quota-Warning, such as `85% of requests per month used`. */
  readonly onQuotaWarning?: (warning: string) => void;
  readonly onRetry?: (notice: RetryNotice) => void;
}

/** Callbacks, and a signal that ends the chat. */
export interface ChatOptions extends ChatCallbacks {
  readonly signal?: AbortSignal;
}

/** A whole answer. */
export interface ChatResult {
  readonly text: string;
  readonly reasoning: string;
  readonly finishReason: string | null;
  readonly usage: ChatUsage | undefined;
}

/** The chunks of an answer as they come. To stop reading (`break`) ends the request. */
export interface ChatStream extends AsyncIterable<ChatChunk> {
  /** Reads to the end. */
  result(): Promise<ChatResult>;
}

/** The answer ended before it was complete: what had come is in `partial`. It isn't asked for again. */
export class StreamBrokenError extends ProxyError {
  override readonly name = "StreamBrokenError";
  readonly partial: ChatResult;

  constructor(partial: ChatResult, cause: unknown) {
    const said = cause instanceof ProxyError ? cause : undefined;
    super({
      code: said?.code ?? "stream_broken",
      message: said?.message ?? "The stream ended before the answer was complete.",
      type: said?.type,
      traceId: said?.traceId,
      details: said?.details,
      cause,
    });
    this.partial = partial;
  }
}

/** What a chat is sent with. */
export interface ChatConnection {
  readonly baseUrl: string;
  readonly fetch: typeof globalThis.fetch;
  readonly retry: RetryPolicy;
}

/** Starts a streamed chat when it is first read. Can be read once. */
export function streamChat(connection: ChatConnection, request: ChatRequest, options: ChatOptions): ChatStream {
  let isRead = false;
  const chunks = (tally: Tally): AsyncGenerator<ChatChunk, void, undefined> => {
    if (isRead) throw new TypeError("A chat can be read once.");
    isRead = true;
    return readChat(connection, request, options, tally);
  };
  return {
    [Symbol.asyncIterator]: () => chunks(createTally()),
    async result() {
      const tally = createTally();
      const reader = chunks(tally);
      while ((await reader.next()).done !== true);
      return tally.result();
    },
  };
}

async function* readChat(
  connection: ChatConnection,
  request: ChatRequest,
  options: ChatOptions,
  tally: Tally,
): AsyncGenerator<ChatChunk, void, undefined> {
  // The first event belongs to the try: before it nothing has been charged.
  const { first, rest } = await withRetries(
    () => openChat(connection, request, options),
    connection.retry,
    options.signal,
    options.onRetry,
  );
  try {
    for (let data: string | undefined = first; ;) {
      if (data === "[DONE]") return;
      const event: unknown = data === undefined ? undefined : parsed(data);
      const error = errorInBody(event);
      if (error !== undefined || !isRecord(event)) throw new StreamBrokenError(tally.result(), error);
      const chunk = event as ChatChunk;
      tally.add(chunk, options);
      yield chunk;
      data = await nextEvent(rest, options.signal, tally);
    }
  } finally {
    await rest.return();
  }
}

async function nextEvent(
  events: AsyncGenerator<string, void, undefined>,
  signal: AbortSignal | undefined,
  tally: Tally,
): Promise<string | undefined> {
  try {
    return (await events.next()).value ?? undefined;
  } catch (cause) {
    if (signal?.aborted === true) throw cause;
    throw new StreamBrokenError(tally.result(), cause);
  }
}

interface OpenChat {
  readonly first: string;
  readonly rest: AsyncGenerator<string, void, undefined>;
}

/** Sends the request and waits for the first event. Throws ProxyError. */
async function openChat(
  { baseUrl, fetch }: ChatConnection,
  request: ChatRequest,
  { signal, onQuotaWarning }: ChatOptions,
): Promise<OpenChat> {
  const response = await fetch(`${baseUrl}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify({ ...request, stream: true }),
    ...(signal === undefined ? {} : { signal }),
  }).catch((cause: unknown) => {
    throw signal?.aborted === true || cause instanceof ProxyError ? cause : connectionError(cause);
  });
  if (!response.ok) throw await errorOfResponse(response);
  const warning = response.headers.get("x-quota-warning");
  if (warning !== null) onQuotaWarning?.(warning);
  if (response.body === null) throw new UnavailableError({ code: "stream_broken", message: "The answer is empty." });
  const rest = eventsOf(response.body);
  const first = await nextEvent(rest, signal, createTally());
  if (first === undefined) throw new StreamBrokenError(createTally().result(), undefined);
  const error = errorInBody(parsed(first));
  if (error === undefined) return { first, rest };
  await rest.return();
  throw error;
}

interface Tally {
  add(chunk: ChatChunk, callbacks: ChatCallbacks): void;
  result(): ChatResult;
}

function createTally(): Tally {
  const texts: string[] = [];
  const reasonings: string[] = [];
  let finishReason: string | null = null;
  let usage: ChatUsage | undefined;
  return {
    add(chunk, { onToken, onReasoning, onUsage }) {
      const choice = chunk.choices?.[0];
      const { content, reasoning_content: reasoning } = choice?.delta ?? {};
      finishReason = choice?.finish_reason ?? finishReason;
      if (typeof reasoning === "string" && reasoning !== "") {
        reasonings.push(reasoning);
        onReasoning?.(reasoning);
      }
      if (typeof content === "string" && content !== "") {
        texts.push(content);
        onToken?.(content);
      }
      if (chunk.usage != null) {
        usage = chunk.usage;
        onUsage?.(usage);
      }
    },
    result: () => ({ text: texts.join(""), reasoning: reasonings.join(""), finishReason, usage }),
  };
}
