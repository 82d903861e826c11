import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { ApiError } from "../lib/api.ts";
import { exactTime, nanoText, relativeTime, shortDecimal } from "../lib/format.ts";
import { t, tOr } from "../lib/i18n.ts";
import type { Money } from "../lib/types.ts";

/** A page: its title, what can be done there, and the rest. */
export function Page(props: {
  readonly title: string;
  readonly note?: ComponentChildren;
  readonly actions?: ComponentChildren;
  readonly children: ComponentChildren;
}) {
  return (
    <>
      <header class="page-head">
        <div>
          <h1>{props.title}</h1>
          {props.note !== undefined && <p class="note">{props.note}</p>}
        </div>
        <div class="actions">{props.actions}</div>
      </header>
      {props.children}
    </>
  );
}

export function Card(props: {
  readonly title?: ComponentChildren;
  readonly actions?: ComponentChildren;
  readonly dim?: boolean;
  readonly children: ComponentChildren;
}) {
  return (
    <section class={`card${props.dim === true ? " dim" : ""}`}>
      {(props.title !== undefined || props.actions !== undefined) && (
        <div class="card-head">
          <h2>{props.title}</h2>
          <div class="actions">{props.actions}</div>
        </div>
      )}
      {props.children}
    </section>
  );
}

/** Copies a text; says so. */
export function CopyButton({ text, label }: { readonly text: string; readonly label?: string }) {
  const [done, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    await copyText(text);
    setDone(true);
    setTimeout(() => {
      setDone(false);
    }, 1500);
  };
  return (
    <button type="button" class="small" onClick={() => void copy()}>
      <span aria-live="polite">{done ? t("copied") : (label ?? t("copy"))}</span>
    </button>
  );
}

/** The clipboard is closed on plain http: a selection is copied there. */
async function copyText(text: string): Promise<void> {
  const { clipboard } = navigator as { readonly clipboard?: Clipboard };
  try {
    if (clipboard !== undefined) {
      await clipboard.writeText(text);
      return;
    }
  } catch {
    // The browser has no permission for it.
  }
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- the only way without a clipboard
  document.execCommand("copy");
  area.remove();
}

/** Text to copy as a whole. */
export function Snippet({ text, label }: { readonly text: string; readonly label?: string }) {
  return (
    <div class="snippet">
      <div class="snippet-head">
        <span>{label}</span>
        <CopyButton text={text} />
      </div>
      <pre tabIndex={0} aria-label={label ?? t("copy")}>
        {text}
      </pre>
    </div>
  );
}

/** What went wrong: what to do, the code, and the request's id to ask an operator about. */
export function ErrorNote({ error, retry }: { readonly error: ApiError | undefined; readonly retry?: () => void }) {
  if (error === undefined) return null;
  // An error of one field may have words of its own.
  const told = tOr(`error_${error.code}_${error.param ?? ""}`, tOr(`error_${error.code}`, error.message));
  const facts = `${error.code}${error.requestId === "" ? "" : ` · ${error.requestId}`}`;
  return (
    <div class="error" role="alert">
      <p>{told}</p>
      {told !== error.message && error.message !== "" && <p class="note">{error.message}</p>}
      {facts !== "" && <p class="note mono">{facts}</p>}
      <div class="actions">
        {error.requestId !== "" && (
          <CopyButton text={`${error.status} ${facts} ${error.message}`} label={t("copyError")} />
        )}
        {retry !== undefined && (
          <button type="button" class="small" onClick={retry}>
            {t("tryAgain")}
          </button>
        )}
      </div>
    </div>
  );
}

/** A time: relative, exact on hover. */
export function Time({ iso, never }: { readonly iso: string | null | undefined; readonly never?: string }) {
  if (iso === null || iso === undefined) return <span class="muted">{never ?? "–"}</span>;
  return (
    <time dateTime={iso} title={exactTime(iso)}>
      {relativeTime(iso)}
    </time>
  );
}

/** An exact decimal: short, whole on hover, never without its currency. */
export function Amount({ value, currency }: { readonly value: string; readonly currency: string }) {
  return (
    <span class="num" title={`${value} ${currency}`}>
      {shortDecimal(value)}
      <small> {currency}</small>
    </span>
  );
}

export function Costs({ costs }: { readonly costs: readonly Money[] }) {
  if (costs.length === 0) return <span class="muted">0</span>;
  return (
    <span class="costs">
      {costs.map(({ cost, currency }) => (
        <Amount key={currency} value={cost} currency={currency} />
      ))}
    </span>
  );
}

export function Nano({ nano, currency }: { readonly nano: number; readonly currency: string }) {
  return currency === "" ? <span class="muted">–</span> : <Amount value={nanoText(nano)} currency={currency} />;
}

/** A state: a word with a colour, never a colour alone. */
export function State({ state }: { readonly state: string }) {
  const good = ["up", "active", "closed", "ok", "unused", "completed"];
  const bad = ["down", "open", "banned", "disabled", "failed", "expired"];
  const kind = good.includes(state) ? "good" : bad.includes(state) ? "bad" : "warn";
  return <span class={`badge ${kind}`}>{tOr(`state_${state}`, state)}</span>;
}

export function Empty({ children }: { readonly children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}
