import { shiftDay, today } from "../lib/format.ts";
import { t } from "../lib/i18n.ts";
import { route, setQuery } from "../lib/router.ts";
import { oldestDay } from "../lib/span.ts";

/** What a user's name looks like. The proxy refuses to look for any other. */
export const userNames = "[a-z0-9][a-z0-9_\\-]{0,31}";

/** A field of a filter: its value is in the address. What is typed counts on Enter or when one leaves it. */
export function FilterField(props: {
  readonly label: string;
  readonly name: string;
  readonly search?: boolean;
  readonly live?: boolean;
  readonly pattern?: string;
  /** Says what fits the pattern. */
  readonly title?: string;
  readonly maxLength?: number;
}) {
  const { label, name, search = false, live = false, maxLength = 64, ...rest } = props;
  const value = route.value.query.get(name) ?? "";
  const set = (input: HTMLInputElement): void => {
    input.value = input.value.trim();
    if (input.checkValidity()) setQuery({ [name]: input.value });
  };
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="text"
        name={name}
        value={value}
        maxLength={maxLength}
        {...rest}
        {...(search ? { "data-search": true } : {})}
        onChange={(event) => {
          set(event.currentTarget);
        }}
        onInput={(event) => {
          if (live) setQuery({ [name]: event.currentTarget.value.trim() });
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter") return;
          set(event.currentTarget);
          event.currentTarget.reportValidity();
        }}
      />
    </label>
  );
}

/** A filter by a user's name. */
export function UserFilter({ label }: { readonly label: string }) {
  return <FilterField label={label} name="user" search pattern={userNames} title={t("userNameRule")} />;
}

/** The first and the last day of a report, and the usual spans. */
export function DayRange({ from, to }: { readonly from: string; readonly to: string }) {
  const spans = [
    ["1", t("today")],
    ["7", t("last7")],
    ["30", t("last30")],
  ] as const;
  const setDay = (name: "from" | "to", day: string): void => {
    // A year that is being typed is 0002 first.
    if (day === "" || day > "1000") setQuery({ [name]: day });
  };
  return (
    <>
      <label class="field">
        <span>{t("from")}</span>
        <input
          type="date"
          name="from"
          value={from}
          min={oldestDay()}
          max={to}
          onChange={(event) => {
            setDay("from", event.currentTarget.value);
          }}
        />
      </label>
      <label class="field">
        <span>{t("to")}</span>
        <input
          type="date"
          name="to"
          value={to}
          min={oldestDay()}
          max={today()}
          onChange={(event) => {
            setDay("to", event.currentTarget.value);
          }}
        />
      </label>
      <div class="field tabs" role="group" aria-label={t("span")}>
        {spans.map(([days, label]) => (
          <button
            key={days}
            type="button"
            class="small"
            aria-pressed={to === today() && from === shiftDay(to, 1 - Number(days))}
            onClick={() => {
              setQuery({ from: shiftDay(today(), 1 - Number(days)), to: today() });
            }}
          >
            {label}
          </button>
        ))}
      </div>
    </>
  );
}
