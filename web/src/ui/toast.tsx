import { signal } from "@preact/signals";
import { t } from "../lib/i18n.ts";
import { toApiError } from "../lib/load.ts";
import { ErrorNote } from "./basics.tsx";
import type { ApiError } from "../lib/api.ts";

interface Toast {
  readonly text: string;
  readonly undo?: (() => Promise<void>) | undefined;
  readonly error?: ApiError;
}

const toast = signal<Toast | null>(null);
let timer: ReturnType<typeof setTimeout> | undefined;

function show(one: Toast, ms: number): void {
  clearTimeout(timer);
  toast.value = one;
  timer = setTimeout(() => {
    toast.value = null;
  }, ms);
}

/** Says that something was done; for ten seconds it can be undone, where that is possible. */
export function tell(text: string, undo?: () => Promise<void>): void {
  show({ text, undo }, undo === undefined ? 4_000 : 10_000);
}

/** Buttons whose action is under way. */
const busy = new Set<Element>();

/** Runs what a button does; a failure is shown. A second click meanwhile would do it twice, and is ignored. */
export async function attempt(action: () => Promise<void>): Promise<void> {
  const focused = document.activeElement;
  // Some browsers give a button that is clicked no focus.
  const button = focused instanceof HTMLButtonElement ? focused : undefined;
  if (button !== undefined && busy.has(button)) return;
  if (button !== undefined) busy.add(button);
  try {
    await action();
  } catch (failure) {
    show({ text: "", error: toApiError(failure) }, 20_000);
  } finally {
    if (button !== undefined) busy.delete(button);
  }
}

export function Toasts() {
  const one = toast.value;
  return (
    <div class="toasts" role="status">
      {one !== null && (
        <div class="toast">
          {one.error === undefined ? <span>{one.text}</span> : <ErrorNote error={one.error} />}
          {one.undo !== undefined && (
            <button
              type="button"
              class="small"
              onClick={() => {
                toast.value = null;
                void attempt(one.undo ?? (() => Promise.resolve()));
              }}
            >
              {t("undo")}
            </button>
          )}
          <button type="button" class="quiet" aria-label={t("close")} onClick={() => (toast.value = null)}>
            ✕
          </button>
        </div>
      )}
    </div>
  );
}
