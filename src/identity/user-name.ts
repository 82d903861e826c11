import { AppError } from "../errors.ts";

const pattern = /^[a-z0-9][a-z0-9_-]{0,31}$/;
/** Windows opens a device for a file of one of these names, whatever the extension. */
const deviceName = /^(con|prn|aux|nul|com[1-9]|lpt[1-9])$/;

/**
 * Whether the text may be a user's name. Names become file names, so there is one strict pattern: lower case only
 * (Admin and admin would be the same file on some systems), ASCII only (no look-alikes), no dots, slashes or NUL.
 */
export function isUserName(name: string): boolean {
  return pattern.test(name) && !deviceName.test(name);
}

/**
 * Returns the input if it may be a user's name.
 *
 * @throws AppError `invalid_request` with param "username"
 */
export function checkUserName(input: unknown): string {
  if (typeof input === "string" && isUserName(input)) return input;
  throw new AppError("invalid_request", {
    param: "username",
    message:
      "A user name has 1 to 32 characters: lower-case letters, digits, - and _, beginning with a letter or digit. " +
      "Device names such as con or com1 are not allowed.",
  });
}
