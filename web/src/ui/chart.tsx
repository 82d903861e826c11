import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../lib/i18n.ts";
import { Table } from "./table.tsx";

export interface ChartData {
  readonly kind: "bars" | "line";
  readonly height: number;
  /** ms since the epoch, ascending. */
  readonly at: readonly number[];
  readonly series: readonly {
    readonly name: string;
    /** The name of a CSS variable. */
    readonly color: string;
    /** null: there is no value; a gap. */
    readonly values: readonly (number | null)[];
  }[];
  readonly formatX: (ms: number) => string;
  readonly formatY: (value: number) => string;
  readonly onHover: (index: number | null) => void;
  readonly onPick?: ((index: number) => void) | undefined;
}

/**
 * A chart with its legend, which shows the values under the pointer, and its numbers as a table for those who can't see
 * it. Its space is there before it is drawn.
 */
export function Chart(props: { readonly label: string } & Omit<ChartData, "onHover">) {
  const element = useRef<HTMLDivElement>(null);
  const plot = useRef<{ update(data: ChartData): void; destroy(): void } | undefined>(undefined);
  const [hovered, setHovered] = useState<number | null>(null);
  const [open, setOpen] = useState(false);
  const { label, ...rest } = props;
  const data: ChartData = { ...rest, onHover: setHovered };
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    let gone = false;
    void import("./plot.ts").then(({ draw }) => {
      if (!gone && element.current !== null) plot.current = draw(element.current, latest.current);
    });
    return () => {
      gone = true;
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => {
    plot.current?.update(data);
  });

  const { at, series, formatX, formatY, height } = props;
  const sums = series.map(({ values }) => values.reduce<number>((sum, value) => sum + (value ?? 0), 0));
  return (
    <figure class="chart" aria-label={label}>
      <div class="legend">
        <span class="legend-x">{hovered === null ? "" : formatX(at[hovered] ?? 0)}</span>
        {series.map(({ name, color, values }, index) => (
          <span key={name}>
            <i class={`swatch ${color}`} /> {name}{" "}
            <b>
              {hovered !== null
                ? showValue(values[hovered], formatY)
                : props.kind === "bars"
                  ? formatY(sums[index] ?? 0)
                  : showValue(
                      values.findLast((value) => value !== null),
                      formatY,
                    )}
            </b>
          </span>
        ))}
      </div>
      <div ref={element} class={`plot h${height}`} aria-hidden="true" />
      <details
        open={open}
        onToggle={(event) => {
          setOpen(event.currentTarget.open);
        }}
      >
        <summary>{t("asTable")}</summary>
        {open && (
          <Table
            label={label}
            rows={at.map((ms, index) => ({ ms, index })).reverse()}
            keyOf={({ ms }) => String(ms)}
            empty=""
            columns={[
              { head: t("time"), cell: ({ ms }) => formatX(ms) },
              ...series.map(({ name, values }) => ({
                head: name,
                num: true,
                cell: ({ index }: { readonly index: number }) => showValue(values[index], formatY),
              })),
            ]}
          />
        )}
      </details>
    </figure>
  );
}

function showValue(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? "–" : format(value);
}
