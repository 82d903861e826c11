/**
 * Creates a function that finds the line, from 1, where a value of a valid TOML text is; undefined for what the text
 * doesn't have. What is inside a value of several lines, or absent, gets the line of what it belongs to. Reads the text
 * once; strings of several lines and comments are skipped.
 */
export function createLineFinder(text: string): (path: readonly string[]) => number | undefined {
  const lines = new Map<string, number>();
  const arrays = new Map<string, number>();
  let table: readonly string[] = [];
  let open: Open = closed;
  text.split("\n").forEach((content, index) => {
    if (open !== closed) {
      open = scan(content, open);
      return;
    }
    const start = content.trimStart();
    if (start === "" || start.startsWith("#")) return;
    const isArray = start.startsWith("[[");
    if (start.startsWith("[")) {
      const keys = keysOf(start.slice(isArray ? 2 : 1));
      table = isArray ? nextEntry(keys, arrays) : withIndexes(keys, arrays);
      remember(lines, table, index + 1);
      return;
    }
    remember(lines, [...table, ...keysOf(start)], index + 1);
    const equals = content.indexOf("=");
    open = scan(equals < 0 ? "" : content.slice(equals + 1), closed);
  });
  return (path) => {
    for (let length = path.length; length > 0; length--) {
      const line = lines.get(identity(path.slice(0, length)));
      if (line !== undefined) return line;
    }
    return undefined;
  };
}

/** What a line leaves open: brackets, and the quotes of a string of several lines; "" if none. */
interface Open {
  readonly depth: number;
  readonly quotes: string;
}

const closed: Open = { depth: 0, quotes: "" };

function identity(path: readonly string[]): string {
  return path.join("\n");
}

/** Of a path and its parents the first line counts. */
function remember(lines: Map<string, number>, path: readonly string[], line: number): void {
  for (let length = 1; length <= path.length; length++) {
    const key = identity(path.slice(0, length));
    if (!lines.has(key)) lines.set(key, line);
  }
}

/** The path of a table: after the name of a list of tables comes the index of its last entry. */
function withIndexes(keys: readonly string[], arrays: ReadonlyMap<string, number>): string[] {
  const path: string[] = [];
  for (const key of keys) {
    path.push(key);
    const last = arrays.get(identity(path));
    if (last !== undefined) path.push(String(last));
  }
  return path;
}

function nextEntry(keys: readonly string[], arrays: Map<string, number>): string[] {
  const path = [...withIndexes(keys.slice(0, -1), arrays), ...keys.slice(-1)];
  const index = (arrays.get(identity(path)) ?? -1) + 1;
  arrays.set(identity(path), index);
  return [...path, String(index)];
}

/** The parts of a key, bare or quoted, at the start of a text; they end at `=`, `]` or what is no key. */
function keysOf(text: string): string[] {
  const keys: string[] = [];
  let at = 0;
  const skip = (): void => {
    while (text[at] === " " || text[at] === "\t") at++;
  };
  for (;;) {
    skip();
    const quote = text[at];
    const from = at;
    if (quote === '"' || quote === "'") {
      at++;
      while (at < text.length && text[at] !== quote) at += quote === '"' && text[at] === "\\" ? 2 : 1;
      at++;
      keys.push(unquoted(text.slice(from, at)));
    } else {
      while (at < text.length && /[\w-]/.test(text[at] ?? "")) at++;
      if (at === from) return keys;
      keys.push(text.slice(from, at));
    }
    skip();
    if (text[at] !== ".") return keys;
    at++;
  }
}

function unquoted(key: string): string {
  if (key.startsWith("'")) return key.slice(1, -1);
  try {
    return String(JSON.parse(key));
  } catch {
    // An escape that only TOML knows: the key gets the line of its table.
    return key;
  }
}

/** What is open after a piece of a value. */
function scan(text: string, before: Open): Open {
  let { depth, quotes } = before;
  for (let at = 0; at < text.length; at++) {
    const char = text[at] ?? "";
    if (quotes !== "") {
      if (char === "\\" && quotes.startsWith('"')) at++;
      else if (text.startsWith(quotes, at)) {
        at += quotes.length - 1;
        quotes = "";
      }
    } else if (char === "#") break;
    else if (char === '"' || char === "'") {
      const isLong = text.startsWith(char.repeat(3), at);
      quotes = isLong ? char.repeat(3) : char;
      at += quotes.length - 1;
    } else if (char === "[" || char === "{") depth++;
    else if (char === "]" || char === "}") depth--;
  }
  // A string in one pair of quotes ends with its line.
  if (quotes.length === 1) quotes = "";
  return depth <= 0 && quotes === "" ? closed : { depth, quotes };
}
