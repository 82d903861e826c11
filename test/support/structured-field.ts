/** An item of a structured field: a string with parameters, as RFC 9651 has it. */
export interface FieldItem {
  readonly name: string;
  readonly [parameter: string]: string | number;
}

/** Parses a List of Strings whose parameters are Integers and Strings. Throws where the text is anything else. */
export function parseFieldList(text: string | null): readonly FieldItem[] {
  if (text === null) throw new Error("there is no such header");
  let rest = text;
  const read = (pattern: RegExp): string => {
    const found = pattern.exec(rest);
    if (found === null) throw new Error(`not a structured field at: ${rest}`);
    rest = rest.slice(found[0].length);
    return found[0];
  };
  const items: FieldItem[] = [];
  for (;;) {
    const item: Record<string, string | number> = { name: readString(read) };
    while (rest.startsWith(";")) {
      read(/^; */);
      const key = read(/^[a-z*][a-z0-9_.*-]*/);
      read(/^=/);
      item[key] = rest.startsWith('"') ? readString(read) : Number(read(/^-?\d{1,15}(?![\d.])/));
    }
    items.push(item as FieldItem);
    if (rest === "") return items;
    read(/^[ \t]*,[ \t]*(?!$)/);
  }
}

function readString(read: (pattern: RegExp) => string): string {
  return JSON.parse(read(/^"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"/)) as string;
}
