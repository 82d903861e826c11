import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import { Attempt } from "./attempt.ts";
import type { Provider, UpstreamRequest } from "./provider.ts";
import { ProviderHealth } from "./provider-health.ts";
import { timeoutReason } from "./read-text.ts";
import type { ReportedUsage } from "./stream/reported.ts";
import { countable } from "./stream/usage.ts";
import { UpstreamError } from "./upstream-error.ts";

/** What a provider did with one small chat. */
export interface ProviderTest {
  /** Whether a complete answer came. */
  readonly ok: boolean;
  /** The provider's name for the model. */
  readonly model: string;
  /** The index of the key that was sent. */
  readonly key: number;
  /** HTTP status; null: no response came. */
  readonly status: number | null;
  /** In ms from the beginning; null if they did not come. */
  readonly headersMs: number | null;
  readonly firstTokenMs: number | null;
  readonly totalMs: number;
  readonly usage: ReportedUsage | null;
  readonly error: ProviderTestError | null;
}

interface ProviderTestError {
  /** As metrics and logs name it. */
  readonly kind: string;
  /** The provider's own code; "" if it gave none. */
  readonly code: string;
  /** The provider's words without secrets, or ours about its response. */
  readonly message: string;
}

/** Longest time of a test, in ms. */
const timeoutMs = 20_000;

/** The smallest chat that costs something: nothing else shows that the key, the model and the balance will do. */
const smallChat: UpstreamRequest = {
  api: "chat",
  collects: false,
  choices: 1,
  canDropStreamOptions: () => true,
  bodyFor: (model, { streamOptions }) =>
    Buffer.from(
      JSON.stringify({
        model,
        messages: [{ role: "user", content: "Hi" }],
        max_tokens: 1,
        stream: true,
        ...(streamOptions ? { stream_options: { include_usage: true } } : {}),
      }),
    ),
};

/** Circuits of a test: it is a question of an operator, and neither closes nor opens those of the account. */
const circuitsOfTest = { failures: 1, windowMs: 1000, openMs: 1000 };

/**
 * Sends one small chat, whatever the state of the account: also where it is drained, or its circuit is open. Its result
 * changes no circuit and no figure: an operator may test a model that does not exist, and clients must not lose a
 * provider by it; nor does one good answer prove that a failing provider can take all the load again.
 *
 * @param model as clients or the provider name it; undefined: the first that the provider is known to have
 * @throws AppError `invalid_request`, `conflict` (it has no API for chats)
 */
export async function testProvider(provider: Provider, model: string | undefined, clock: Clock): Promise<ProviderTest> {
  if (!provider.offers("chat"))
    throw new AppError("conflict", { message: `The provider ${provider.name} has no API for chats.` });
  const name = model ?? [...provider.models, ...provider.kind.knownModels].find((one) => !one.includes("*"));
  if (name === undefined)
    throw new AppError("invalid_request", {
      param: "model",
      message: "model: expected one, as the config names none.",
    });
  const own = provider.ownName(name);
  const health = new ProviderHealth(circuitsOfTest);
  const startedAt = clock.monotonic();
  const pass = health.enter({ model: own, user: "" }, startedAt);
  if (pass === null) throw new Error("a new circuit is closed");
  // All else is the account's own: its key, its connections, its timeouts.
  const quiet = Object.create(provider, { health: { value: health } }) as Provider;
  const attempt = new TestAttempt(quiet, pass, smallChat, clock);
  const form = { streamOptions: provider.supportsStreamOptions(own), asWhole: false };
  const error = await run(attempt, () => attempt.open(own, startedAt, form));
  return {
    ok: error === null,
    model: own,
    key: provider.keyIndex,
    status: attempt.status,
    headersMs: attempt.headersMs,
    firstTokenMs: attempt.firstEventMs,
    totalMs: clock.monotonic() - startedAt,
    usage: countable(attempt.reader.usage),
    error: error === null ? null : toTestError(error),
  };
}

/** Reads the answer to its end. Returns why it is not complete; null if it is. */
async function run(attempt: Attempt, open: () => Promise<void>): Promise<Error | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Error>((resolve) => {
    timer = setTimeout(() => {
      const error = new Error(timeoutReason(timeoutMs));
      resolve(error);
      attempt.cancel(error);
    }, timeoutMs).unref();
  });
  const read = async (): Promise<Error | null> => {
    try {
      await open();
    } catch (error) {
      return error instanceof Error ? error : new Error("no answer");
    }
    return new Promise((resolve) => {
      attempt.pipe({ onEvent: ignore, onBatch: ignore, onEnd: resolve });
    });
  };
  try {
    return await Promise.race([read(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** An attempt that notes when the response began. */
class TestAttempt extends Attempt {
  status: number | null = null;
  headersMs: number | null = null;
  readonly #now: () => number;
  readonly #startedAt: number;

  constructor(...given: ConstructorParameters<typeof Attempt>) {
    super(...given);
    const [, , , clock] = given;
    this.#now = () => clock.monotonic();
    this.#startedAt = clock.monotonic();
  }

  override onResponseStart(...given: Parameters<Attempt["onResponseStart"]>): void {
    const [, status] = given;
    if (status >= 200) {
      this.status = status;
      this.headersMs = this.#now() - this.#startedAt;
    }
    super.onResponseStart(...given);
  }
}

function toTestError(error: Error): ProviderTestError {
  if (!(error instanceof UpstreamError)) return { kind: "timeout", code: "", message: error.message };
  const { kind, stage, upstreamMessage, upstream, cause } = error.facts;
  // Of a lost connection only Node's code: its message may hold an address of the inner network.
  const reason = cause instanceof Error && "code" in cause ? ` (${String(cause.code)})` : "";
  return { kind, code: upstream?.code ?? "", message: upstreamMessage ?? `${kind} at ${stage}${reason}` };
}

function ignore(): void {
  // Only how it ends matters.
}
