/** A cell that Excel and others would run as a formula. */
const formula = /^[=+\-@\t\r]/;

/**
 * A line of CSV by RFC 4180, including its line end. Text that could be taken for a formula gets a leading apostrophe;
 * numbers are unchanged.
 */
export function csvLine(cells: readonly (string | number)[]): string {
  return `${cells.map(toCell).join(",")}\r\n`;
}

function toCell(cell: string | number): string {
  if (typeof cell === "number") return String(cell);
  const text = formula.test(cell) && !/^-?\d+(\.\d+)?$/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
