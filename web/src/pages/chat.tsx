import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, part, send } from "../lib/api.ts";
import { duration } from "../lib/format.ts";
import { t } from "../lib/i18n.ts";
import { useModels } from "../lib/models.ts";
import { route, setQuery } from "../lib/router.ts";
import { readEvents } from "../lib/sse.ts";
import type { Money } from "../lib/types.ts";
import { Costs, CopyButton, ErrorNote, Page } from "../ui/basics.tsx";
import { Select } from "../ui/dialog.tsx";

interface Turn {
  readonly role: "user" | "assistant";
  readonly content: string;
  readonly reasoning: string;
  readonly done: boolean;
  readonly note?: string;
  readonly costs?: readonly Money[];
}

interface Chunk {
  readonly error?: { readonly message: string; readonly code: string };
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null; readonly reasoning_content?: string | null };
  }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
}

/** What GET /auth/usage/requests/ID says. */
interface Charged extends Money {
  readonly input_tokens: number;
  readonly output_tokens: number;
}

/** A small chat, to try models: answers as they come, with the reasoning folded, and what each has cost. */
export function Chat() {
  const models = useModels();
  const model = route.value.query.get("model") ?? models[0] ?? "";
  const [turns, setTurns] = useState<readonly Turn[]>([]);
  const [text, setText] = useState("");
  const [error, setError] = useState<ApiError>();
  const running = useRef<AbortController | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => () => running.current?.abort(), []);
  useEffect(() => {
    end.current?.scrollIntoView({ block: "nearest" });
  }, [turns]);

  const ask = async (): Promise<void> => {
    const question: Turn = { role: "user", content: text.trim(), reasoning: "", done: true };
    const asked = [...turns, question];
    let answer: Turn = { role: "assistant", content: "", reasoning: "", done: false };
    const show = (change: Partial<Turn>): void => {
      answer = { ...answer, ...change };
      setTurns([...asked, answer]);
    };
    const abort = new AbortController();
    running.current = abort;
    setBusy(true);
    setError(undefined);
    show({});
    setText("");
    const startedAt = performance.now();
    let usage: Chunk["usage"];
    let requestId = "";
    let isComplete = false;
    try {
      const body = {
        model,
        stream: true,
        stream_options: { include_usage: true },
        // An answer that was stopped before it began says nothing.
        messages: asked.filter(({ content }) => content !== "").map(({ role, content }) => ({ role, content })),
      };
      const response = await send("POST", "/v1/chat/completions", { body, signal: abort.signal });
      requestId = response.headers.get("x-request-id") ?? "";
      for await (const event of readEvents(response)) {
        if (event.data === "") continue;
        if (event.data === "[DONE]") {
          isComplete = true;
          break;
        }
        const chunk = JSON.parse(event.data) as Chunk;
        if (chunk.error !== undefined)
          throw new ApiError(response.status, chunk.error.code, chunk.error.message, requestId, null);
        usage = chunk.usage ?? usage;
        const delta = chunk.choices?.[0]?.delta;
        if (delta !== undefined) {
          show({
            content: answer.content + (delta.content ?? ""),
            reasoning: answer.reasoning + (delta.reasoning_content ?? ""),
          });
        }
      }
      if (!isComplete) throw brokenOff("", requestId);
    } catch (failure) {
      if (!abort.signal.aborted) {
        // What a broken connection throws is the browser's.
        setError(failure instanceof ApiError ? failure : brokenOff(String(failure), requestId));
        // Nothing came: what was typed is given back.
        if (answer.content === "") {
          setTurns(turns);
          setText((typed) => (typed.trim() === "" ? question.content : `${question.content}\n${typed}`));
          setBusy(false);
          return;
        }
      }
    }
    setBusy(false);
    const took = duration(performance.now() - startedAt);
    const told = isComplete ? "" : `${t("stopped")} · `;
    const tokens = usage && t("tokensInOut", { input: usage.prompt_tokens, output: usage.completion_tokens });
    show({ done: true, note: `${told}${tokens ? `${tokens} · ` : ""}${took}` });
    const charged = requestId === "" ? undefined : await chargedFor(requestId);
    if (charged === undefined) return;
    const { input_tokens: input, output_tokens: output, cost, currency } = charged;
    const exact = t("tokensInOut", { input, output });
    answer = {
      ...answer,
      note: `${told}${exact} · ${took}`,
      costs: currency === "" ? [] : [{ cost, currency }],
    };
    // By now another question may have been asked, or a new chat begun.
    setTurns((now) => now.map((turn, at) => (at === asked.length && turn.role === "assistant" ? answer : turn)));
  };

  return (
    <Page
      title={t("chat")}
      note={t("chatNote")}
      actions={
        <button
          type="button"
          disabled={busy || turns.length === 0}
          onClick={() => {
            setTurns([]);
          }}
        >
          {t("newChat")}
        </button>
      }
    >
      <Select
        label={t("model")}
        name="model"
        value={model}
        options={(models.length === 0 ? [model] : models).map((id) => [id, id] as const)}
        onChange={(value) => {
          setQuery({ model: value });
        }}
      />
      <div class="chat" role="log" aria-label={t("chat")}>
        {turns.map((turn, index) => (
          <ChatTurn key={index} turn={turn} />
        ))}
        <div ref={end} />
      </div>
      <ErrorNote error={error} />
      <form
        class="chat-form"
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy && text.trim() !== "") void ask();
        }}
      >
        <textarea
          name="message"
          rows={3}
          value={text}
          aria-label={t("message")}
          placeholder={t("messageHint")}
          data-search
          onInput={(event) => {
            setText(event.currentTarget.value);
          }}
          onKeyDown={(event) => {
            // While an input method composes, Enter takes its suggestion.
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              event.currentTarget.form?.requestSubmit();
            }
          }}
        />
        {busy ? (
          <button type="button" class="danger" onClick={() => running.current?.abort()}>
            {t("stop")}
          </button>
        ) : (
          <button type="submit" class="primary">
            {t("send")}
          </button>
        )}
      </form>
    </Page>
  );
}

function ChatTurn({ turn }: { readonly turn: Turn }) {
  const { role, content, reasoning, done, note, costs = [] } = turn;
  return (
    <article class={`turn ${role}`} aria-busy={!done}>
      {reasoning !== "" && (
        <details>
          <summary>{content === "" && !done ? t("reasoningNow") : t("reasoning")}</summary>
          <p class="pre note">{reasoning}</p>
        </details>
      )}
      <p class="pre">{content === "" && !done ? "…" : content}</p>
      {role === "assistant" && done && (
        <p class="note">
          {note}{" "}
          {costs.length > 0 && (
            <>
              · <Costs costs={costs} />
            </>
          )}{" "}
          <CopyButton text={content} />
        </p>
      )}
    </article>
  );
}

/** The answer ended without saying that it is complete. */
function brokenOff(message: string, requestId: string): ApiError {
  return new ApiError(0, "answer_broke_off", message, requestId, null);
}

/** Times that the ledger is asked: it settles a request when its response has ended. */
const costTries = 6;

/** What was charged for a request; undefined: that can't be known. */
async function chargedFor(id: string): Promise<Charged | undefined> {
  for (let tries = 1; tries <= costTries; tries++) {
    try {
      return await get<Charged>(`/auth/usage/requests/${part(id)}`);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) return undefined;
      await new Promise((resolve) => setTimeout(resolve, 150 * tries));
    }
  }
  return undefined;
}
