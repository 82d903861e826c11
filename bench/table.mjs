// Turns the figures of many rounds into one table.

/** The median of every figure over the rounds. */
function medians(rounds) {
  return Object.fromEntries(Object.keys(rounds[0]).map((name) => [name, median(rounds.map((round) => round[name]))]));
}

/**
 * A Markdown table: both servers, what the proxy adds, and the ratio. The last two are medians of what each round gave,
 * because a machine that is slow for a while is slow for both.
 */
export function comparison(direct, passthrough, proxy) {
  const [directly, bare, ours] = [medians(direct), medians(passthrough), medians(proxy)];
  const pairs = (name, relate) => median(proxy.map((round, index) => relate(round[name], passthrough[index][name])));
  const rows = Object.keys(ours).map((name) => {
    const difference = pairs(name, (a, b) => a - b);
    return [
      name,
      directly[name] === undefined ? "" : figure(directly[name]),
      figure(bare[name]),
      figure(ours[name]),
      (difference < 0 ? "" : "+") + figure(difference),
      `${pairs(name, (a, b) => a / b).toFixed(2)}x`,
    ];
  });
  return table(["", "no proxy", "bare passthrough", "proxy", "difference", "ratio"], rows);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
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
