import type { ComponentChildren } from "preact";
import { t } from "../lib/i18n.ts";

export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => ComponentChildren;
  /** Right-aligned. */
  readonly num?: boolean;
}

/**
 * A table; on a phone each row is a block whose cells name themselves. Roles are given in words, because a table that is
 * laid out as blocks loses its own.
 */
export function Table<Row>(props: {
  readonly label: string;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  readonly keyOf: (row: Row, index: number) => string;
  readonly empty: ComponentChildren;
  readonly foot?: readonly ComponentChildren[];
}) {
  const { columns, rows, keyOf, foot } = props;
  if (rows.length === 0) return <p class="empty">{props.empty}</p>;
  const kind = (column: Column<Row>): string => (column.num === true ? "num" : "");
  return (
    <div class="table-wrap">
      <table role="table" aria-label={props.label}>
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <th key={column.head} role="columnheader" scope="col" class={kind(column)}>
                {column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row, index) => (
            <tr key={keyOf(row, index)} role="row">
              {columns.map((column) => (
                <td key={column.head} role="cell" class={kind(column)} data-label={column.head}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
        {foot !== undefined && (
          <tfoot role="rowgroup">
            <tr role="row">
              {columns.map((column, index) => (
                <td key={column.head} role="cell" class={kind(column)} data-label={column.head}>
                  {foot[index]}
                </td>
              ))}
            </tr>
          </tfoot>
        )}
      </table>
    </div>
  );
}

/** The way to the next page. */
export function More({
  busy,
  onMore,
  more,
}: {
  readonly busy: boolean;
  readonly more: boolean;
  readonly onMore: () => void;
}) {
  if (!more) return null;
  return (
    <p class="more">
      <button type="button" aria-busy={busy} onClick={onMore}>
        {t("more")}
      </button>
    </p>
  );
}
