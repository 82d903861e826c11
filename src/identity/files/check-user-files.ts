import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { createAccountSchema } from "../account-schema.ts";
import { fileErrorCode } from "../../lib/files/file-ops.ts";
import { isAccountFileName, readAccountFile } from "./account-file.ts";
import { parseAccountText } from "./account-text.ts";

/**
 * Finds user files that can't be used, such as one with a tier that the config doesn't have. Changes nothing, and may
 * run beside the proxy.
 *
 * @returns a line for each file that can't be used; none if the folder doesn't exist yet
 * @throws Error if the folder can't be listed
 */
export async function checkUserFiles(usersDir: string, tierNames: readonly string[]): Promise<readonly string[]> {
  const schema = createAccountSchema(() => tierNames);
  const problems: string[] = [];
  for (const file of await namesIn(usersDir)) {
    if (!isAccountFileName(file)) continue;
    try {
      const read = await readAccountFile(join(usersDir, file));
      if (read !== undefined) parseAccountText(read.text, file.slice(0, -".toml".length), schema);
    } catch (error) {
      problems.push(`${join(usersDir, file)}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return problems;
}

async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return [];
    throw error;
  }
}
