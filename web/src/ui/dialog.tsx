import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, inputError } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { toApiError } from "../lib/load.ts";
import { ErrorNote } from "./basics.tsx";

/** The browser's own dialog: it keeps the focus inside, closes by Esc, and gives the focus back. */
export function Dialog(props: {
  readonly title: string;
  /** undefined: it stays until it is answered. */
  readonly onClose?: (() => void) | undefined;
  readonly children: ComponentChildren;
}) {
  const element = useRef<HTMLDialogElement>(null);
  const { onClose } = props;
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      aria-label={props.title}
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
    >
      <div class="card-head">
        <h2>{props.title}</h2>
        {onClose !== undefined && (
          <button type="button" class="quiet" aria-label={t("close")} onClick={onClose}>
            ✕
          </button>
        )}
      </div>
      {props.children}
    </dialog>
  );
}

/** A form that sends a change and shows what went wrong; while it is under way it can't be sent twice. */
export function Form(props: {
  readonly action: string;
  readonly onSubmit: (data: FormData) => Promise<void>;
  readonly onCancel?: (() => void) | undefined;
  readonly danger?: boolean;
  /** Whether nothing can be typed or sent. */
  readonly locked?: boolean;
  readonly children?: ComponentChildren;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError>();
  const marked = useRef<HTMLElement | undefined>(undefined);
  const mark = (input: HTMLElement | undefined): void => {
    marked.current?.removeAttribute("aria-invalid");
    marked.current = input;
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
  };
  const submit = async (form: HTMLFormElement): Promise<void> => {
    setBusy(true);
    setError(undefined);
    mark(undefined);
    try {
      await props.onSubmit(new FormData(form));
    } catch (failure) {
      const error = toApiError(failure);
      setError(error);
      mark(fieldOf(form, error.param));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (!busy) void submit(event.currentTarget);
      }}
    >
      <fieldset class="all" disabled={props.locked}>
        {props.children}
      </fieldset>
      <ErrorNote error={error} />
      <div class="actions end">
        {props.onCancel !== undefined && (
          <button type="button" onClick={props.onCancel}>
            {t("cancel")}
          </button>
        )}
        <button
          type="submit"
          class={props.danger === true ? "danger" : "primary"}
          aria-busy={busy}
          disabled={props.locked}
        >
          {props.action}
        </button>
      </div>
    </form>
  );
}

/** Fields that have another name here than in the API. */
const ownNames: Readonly<Record<string, readonly string[]>> = {
  current_password: ["current"],
  new_password: ["new"],
  quota_tier: ["tier"],
  max_parallel: ["parallel"],
  expires_at: ["expires", "days"],
  until: ["days"],
  credit_days: ["credit"],
  requests: ["amount"],
  tokens: ["amount"],
  cost: ["amount"],
};

/** The field that an error is about, such as `max` for limits.0.max and `members` for members.1. */
function fieldOf(form: HTMLFormElement, param: string | null): HTMLElement | undefined {
  const names = (param ?? "").split(".").reverse();
  for (const name of names.flatMap((part) => [...(ownNames[part] ?? []), part])) {
    const input = name === "" ? null : form.elements.namedItem(name);
    if (input instanceof HTMLElement) return input;
  }
  return undefined;
}

/** A text of a form, trimmed. */
export function field(data: FormData, name: string): string {
  const value = data.get(name);
  return typeof value === "string" ? value.trim() : "";
}

/** What was typed as a list: by commas, spaces or lines. */
export function listField(data: FormData, name: string): readonly string[] {
  return field(data, name)
    .split(/[\s,，]+/)
    .filter((item) => item !== "");
}

export function Field(props: {
  readonly label: string;
  readonly name: string;
  readonly type?: string;
  readonly value?: string;
  readonly hint?: string | undefined;
  readonly required?: boolean;
  readonly list?: readonly string[];
  readonly autoComplete?: string;
  readonly autoFocus?: boolean;
  readonly maxLength?: number;
  readonly pattern?: string;
  /** Says what fits the pattern. */
  readonly title?: string;
  readonly min?: number;
  readonly max?: number;
}) {
  const { label, hint, list, value, name, autoFocus: focused, ...rest } = props;
  const listId = list === undefined ? {} : { list: `list-${name}` };
  return (
    <label class="field">
      <span>{label}</span>
      <input
        name={name}
        defaultValue={value ?? ""}
        ref={(input) => {
          if (focused === true && input !== null && input.dataset.focused === undefined) {
            input.dataset.focused = "";
            input.focus();
          }
        }}
        {...(hint === undefined ? {} : { "aria-describedby": `hint-${name}` })}
        {...listId}
        {...rest}
      />
      {list !== undefined && (
        <datalist id={`list-${name}`}>
          {list.map((option) => (
            <option key={option} value={option} />
          ))}
        </datalist>
      )}
      {hint !== undefined && (
        <small id={`hint-${name}`} class="note">
          {hint}
        </small>
      )}
    </label>
  );
}

export function Select(props: {
  readonly label: string;
  readonly name: string;
  readonly options: readonly (readonly [value: string, label: string])[];
  readonly value?: string;
  readonly onChange?: (value: string) => void;
}) {
  return (
    <label class="field">
      <span>{props.label}</span>
      <select
        name={props.name}
        value={props.value ?? props.options[0]?.[0] ?? ""}
        onChange={(event) => props.onChange?.(event.currentTarget.value)}
      >
        {props.options.map(([value, label]) => (
          <option key={value} value={value}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Asks before what can't be undone: the name must be typed. */
export function TypedConfirm(props: {
  readonly title: string;
  readonly what: string;
  readonly name: string;
  readonly action: string;
  readonly onConfirm: () => Promise<void>;
  readonly onClose: () => void;
}) {
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <p>{props.what}</p>
      <Form
        action={props.action}
        danger
        onCancel={props.onClose}
        onSubmit={async (data) => {
          if (field(data, "confirm") !== props.name) throw inputError(t("confirmDiffers"), "confirm");
          await props.onConfirm();
          props.onClose();
        }}
      >
        <Field label={t("typeToConfirm", { name: props.name })} name="confirm" autoComplete="off" autoFocus required />
      </Form>
    </Dialog>
  );
}
