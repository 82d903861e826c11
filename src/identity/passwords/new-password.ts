import { randomInt } from "node:crypto";
import { commonPasswords } from "./common-passwords.ts";
import { AppError } from "../../errors.ts";

const minBytes = 8;
/** Longer passwords are never hashed, set or compared. */
export const maxPasswordBytes = 1024;

/** Checks a password's length in bytes. Throws AppError `invalid_request` that names the field `param`. */
export function checkPasswordLength(password: string, param: string): void {
  const bytes = Buffer.byteLength(password);
  if (bytes < minBytes || bytes > maxPasswordBytes) {
    throw refusal(param, `A password has ${minBytes} to ${maxPasswordBytes} bytes.`);
  }
}

/**
 * Checks a password that a user chooses: long enough, and not a common one. No rules on its characters: they make
 * passwords worse.
 *
 * @param param the field to name in the error
 * @throws AppError `invalid_request`
 */
export function checkNewPassword(password: string, username: string, param: string): void {
  checkPasswordLength(password, param);
  const folded = password.toLowerCase();
  if (commonPasswords.has(folded)) {
    throw refusal(param, "This is one of the commonest passwords, which are tried first. Choose another.");
  }
  if (folded === username) throw refusal(param, "The password must not be the user name.");
}

function refusal(param: string, message: string): AppError {
  return new AppError("invalid_request", { param, message });
}

/** Without 0, o, 1, l and i: these passwords are read out over the phone. */
const alphabet = "abcdefghjkmnpqrstuvwxyz23456789";

/** A random password of five groups of four letters and digits: 99 bits, easy to copy by hand. */
export function generatePassword(): string {
  const letter = () => alphabet[randomInt(alphabet.length)] ?? "";
  const group = () => Array.from({ length: 4 }, letter).join("");
  return Array.from({ length: 5 }, group).join("-");
}
