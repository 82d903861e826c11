import { randomInt } from "node:crypto";

/** Without 0, o, 1, l and i: these are read out over the phone. */
const alphabet = "abcdefghjkmnpqrstuvwxyz23456789";

/** A random password of five groups of four letters and digits: 99 bits, easy to copy by hand. */
export function generatePassword(): string {
  const letter = () => alphabet[randomInt(alphabet.length)] ?? "";
  const group = () => Array.from({ length: 4 }, letter).join("");
  return Array.from({ length: 5 }, group).join("-");
}
