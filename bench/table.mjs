// Turns the figures of many rounds into one table.

/** The median of every figure over the rounds. */
export function medians(rounds) {
  return Object.fromEntries(
    Object.keys(rounds[0]).map((name) => {
      const values = rounds.map((round) => round[name]).sort((a, b) => a - b);
      const middle = values.length >> 1;
      return [name, values.length % 2 === 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2];
    }),
  );
}

/** A Markdown table: both servers, what the proxy adds, and the ratio. */
export function comparison(direct, passthrough, proxy) {
  const rows = Object.keys(proxy).map((name) => [
    name,
    direct[name] === undefined ? "" : figure(direct[name]),
    figure(passthrough[name]),
    figure(proxy[name]),
    (proxy[name] < passthrough[name] ? "" : "+") + figure(proxy[name] - passthrough[name]),
    `${(proxy[name] / passthrough[name]).toFixed(2)}x`,
  ]);
  return table(["", "no proxy", "bare passthrough", "proxy", "difference", "ratio"], rows);
}

/** A Markdown table of texts; the first column is left-aligned. */
export function table(head, rows) {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)));
  const line = (cells) =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(" | ")} |`;
  const rule = `|${widths.map((width, i) => (i === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

/** A figure with about three digits. */
export function figure(value) {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits);
}
