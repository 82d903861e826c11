import fc from "fast-check";

/**
 * Property tests draw the same cases in every run, so that a red run is red again when it is repeated.
 * `PROPERTY_SEED=random` (or a number) looks for new ones: `PROPERTY_SEED=random npm run test:fast`.
 */
const asked = process.env.PROPERTY_SEED ?? "20261126";
if (asked !== "random") fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(asked) });

const [firstSurrogate, surrogates, codePoints] = [0xd800, 0x800, 0x110000];

/** Any character. fast-check's own ("binary") first makes a table of all of them, which takes longer than most tests. */
const anyCharacter = fc.integer({ min: 0, max: codePoints - surrogates - 1 }).map(
  (index) => String.fromCodePoint(index < firstSurrogate ? index : index + surrogates),
  (character) => {
    const code = typeof character === "string" ? character.codePointAt(0) : undefined;
    if (code === undefined || String.fromCodePoint(code) !== character) throw new TypeError("expected one character");
    return code < firstSurrogate ? code : code - surrogates;
  },
);

/** Any text without half characters. */
export function anyText(lengths: { readonly minLength?: number; readonly maxLength?: number } = {}) {
  return fc.string({ ...lengths, unit: anyCharacter });
}

export { fc };
