import type { Tagged } from "../lib/api.ts";
import { inline } from "../lib/facts.ts";
import { t } from "../lib/i18n.ts";
import { Dialog, Form } from "./dialog.tsx";

/** What one wanted to save, and what somebody else has saved in between. */
export interface Conflict<T> {
  readonly mine: Readonly<Partial<Record<keyof T, unknown>>>;
  readonly theirs: Tagged<T>;
}

/** Somebody else was faster: whose values count? Shows both. */
export function ConflictDialog<T>(props: {
  readonly conflict: Conflict<T>;
  readonly what: string;
  readonly onMine: () => Promise<void>;
  readonly onTheirs: () => void;
}) {
  const { mine, theirs } = props.conflict;
  const names = Object.keys(mine) as (keyof T & string)[];
  return (
    <Dialog title={t("conflict")} onClose={props.onTheirs}>
      <p>{props.what}</p>
      {names.map((name) => (
        <div key={name}>
          <b class="mono">{name}</b>
          <div class="changed">
            <div>
              <small>{t("conflictMine")}</small>
              <div class="mono pre">{inline(mine[name])}</div>
            </div>
            <div>
              <small>{t("conflictTheirs")}</small>
              <div class="mono pre">{inline(theirs.value[name])}</div>
            </div>
          </div>
        </div>
      ))}
      <Form action={t("saveMine")} onSubmit={props.onMine} />
      <button type="button" onClick={props.onTheirs}>
        {t("takeTheirs")}
      </button>
    </Dialog>
  );
}
