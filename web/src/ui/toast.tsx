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

/** Runs what a button does; a failure is shown. */
export async function attempt(action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (failure) {
    show({ text: "", error: toApiError(failure) }, 20_000);
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
