/** What Excel and others would run as a formula, were it at the beginning of a cell. */
const formula = /^[=+\-@\t\r]/;

/**
 * A line of CSV by RFC 4180, its line end included. A text that could be taken for a formula gets an apostrophe in
 * front; numbers are left as they are.
 */
export function csvLine(cells: readonly (string | number)[]): string {
  return `${cells.map(toCell).join(",")}\r\n`;
}

function toCell(cell: string | number): string {
  if (typeof cell === "number") return String(cell);
  const text = formula.test(cell) && !/^-?\d+(\.\d+)?$/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
