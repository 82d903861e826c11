import { shiftDay, today } from "../lib/format.ts";
import { t } from "../lib/i18n.ts";
import { route, setQuery } from "../lib/router.ts";

/** A field of a filter: its value is in the address. What is typed counts on Enter or when one leaves it. */
export function FilterField(props: {
  readonly label: string;
  readonly name: string;
  readonly type?: string;
  readonly search?: boolean;
  readonly live?: boolean;
}) {
  const { label, name, type = "text", search = false, live = false } = props;
  const value = route.value.query.get(name) ?? "";
  const set = (text: string): void => {
    setQuery({ [name]: text.trim() });
  };
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type={type}
        name={name}
        value={value}
        {...(search ? { "data-search": true } : {})}
        onChange={(event) => {
          set(event.currentTarget.value);
        }}
        onInput={(event) => {
          if (live) set(event.currentTarget.value);
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter") set(event.currentTarget.value);
        }}
      />
    </label>
  );
}

/** The first and the last day of a report, and the usual spans. */
export function DayRange({ from, to }: { readonly from: string; readonly to: string }) {
  const spans = [
    ["1", t("today")],
    ["7", t("last7")],
    ["30", t("last30")],
  ] as const;
  return (
    <>
      <label class="field">
        <span>{t("from")}</span>
        <input
          type="date"
          name="from"
          value={from}
          onChange={(event) => {
            setQuery({ from: event.currentTarget.value });
          }}
        />
      </label>
      <label class="field">
        <span>{t("to")}</span>
        <input
          type="date"
          name="to"
          value={to}
          onChange={(event) => {
            setQuery({ to: event.currentTarget.value });
          }}
        />
      </label>
      <div class="field tabs" role="group" aria-label={t("span")}>
        {spans.map(([days, label]) => (
          <button
            key={days}
            type="button"
            class="small"
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
