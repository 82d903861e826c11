import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, getTagged, patch, type Tagged } from "../lib/api.ts";
import { inline } from "../lib/facts.ts";
import { t } from "../lib/i18n.ts";
import { Dialog, Form } from "./dialog.tsx";
import { tell } from "./toast.tsx";

/** Fields of something, as they are to be saved. */
export type Fields<T> = Readonly<Partial<Record<keyof T, unknown>>>;

/** What one wanted to save, and what somebody else has saved in between. */
interface Conflict<T> {
  readonly mine: Fields<T>;
  readonly theirs: Tagged<T>;
}

/**
 * Saves changes of what is shown: only the fields that differ are sent, for the version that was shown, and they can be
 * taken back as long as nobody has changed anything since. If somebody else was faster, `dialog` shows both values, and
 * one chooses. The form has `formKey` as its key: a save resets it, and what was typed stays where the values that are
 * shown were only loaded again. It is `locked` until what was saved is shown: what is typed before would be lost.
 *
 * @param path of the thing in the API
 * @param conflictText says what was changed in between
 */
export function useSave<T extends object>(given: {
  readonly path: string;
  readonly tagged: Tagged<T>;
  readonly conflictText: string;
  readonly reload: () => void;
}) {
  const { path, tagged, conflictText, reload } = given;
  const [conflict, setConflict] = useState<Conflict<T>>();
  /** What the form began with. */
  const [begun, setBegun] = useState(tagged);
  const isSaved = useRef(false);
  const [locked, setLocked] = useState(false);
  useEffect(() => {
    if (!isSaved.current) return;
    isSaved.current = false;
    setBegun(tagged);
    setLocked(false);
  }, [tagged]);
  const reset = (): void => {
    isSaved.current = true;
    setLocked(true);
    reload();
  };

  const save = async (wanted: Fields<T>, base: Tagged<T>): Promise<void> => {
    const names = Object.keys(wanted) as (keyof T & string)[];
    const differs = (name: keyof T, one: Fields<T>, other: T): boolean =>
      JSON.stringify(one[name]) !== JSON.stringify(other[name]);
    const differing = names.filter((name) => differs(name, wanted, base.value));
    const fields = Object.fromEntries(differing.map((name) => [name, wanted[name]])) as Fields<T>;
    // It was loaded again below the form, and has changed where something was typed.
    if (base === tagged && differing.some((name) => differs(name, begun.value, tagged.value))) {
      setConflict({ mine: fields, theirs: tagged });
      return;
    }
    if (differing.length > 0) {
      let etag: string;
      setLocked(true);
      try {
        etag = await patch(path, fields, base.etag);
      } catch (error) {
        setLocked(false);
        if (!(error instanceof ApiError) || error.status !== 412) throw error;
        setConflict({ mine: fields, theirs: await getTagged<T>(path) });
        return;
      }
      const before = Object.fromEntries(differing.map((name) => [name, base.value[name]]));
      tell(t("saved"), async () => {
        await patch(path, before, etag);
        reset();
      });
    }
    setConflict(undefined);
    if (differing.length > 0 || conflict !== undefined) reset();
  };

  return {
    formKey: begun.etag,
    locked,
    save: (wanted: Fields<T>) => save(wanted, tagged),
    dialog: conflict !== undefined && (
      <ConflictDialog
        conflict={conflict}
        what={conflictText}
        onMine={() => save(conflict.mine, { ...conflict.theirs })}
        onTheirs={() => {
          setConflict(undefined);
          reset();
        }}
      />
    ),
  };
}

/** Somebody else was faster: whose values count? Shows both. */
function ConflictDialog<T>(props: {
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
