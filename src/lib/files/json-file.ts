import type { z } from "zod";
import { readPlainFile } from "./atomic-file.ts";
import { fileErrorCode } from "./file-ops.ts";

/**
 * Reads a small file that only the proxy writes. Rejects with an error that names the file where it holds something else,
 * and with those of readPlainFile.
 *
 * @param missing what it holds where it is not there
 */
export async function readJsonFile<T>(path: string, schema: z.ZodType<T>, missing: T): Promise<T> {
  let text: string;
  try {
    text = await readPlainFile(path);
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return missing;
    throw error;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new Error(`${path} does not hold what the proxy writes there: restore it from a backup`, { cause });
  }
}
