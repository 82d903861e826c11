import { mkdir, mkdtemp, rename, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../lib/files/atomic-file.ts";
import { fileErrorCode } from "../../lib/files/file-ops.ts";
import { giveToFolderOwner } from "../../lib/files/folder-owner.ts";

/**
 * Moves users/NAME.toml to a folder of its own, users/.archive/NAME-TIME-XXXXXX/; on disk when this resolves.
 *
 * @param at ms since the epoch
 * @returns the folder
 */
export async function archiveAccountFile(usersDir: string, name: string, at: number): Promise<string> {
  const archive = join(usersDir, ".archive");
  await mkdir(archive, { recursive: true, mode: 0o700 });
  await giveToFolderOwner(archive);
  const time = new Date(at).toISOString().replace(/[-:]|\.\d+/g, "");
  const folder = await mkdtemp(join(archive, `${name}-${time}-`));
  await giveToFolderOwner(folder);
  try {
    await rename(join(usersDir, `${name}.toml`), join(folder, `${name}.toml`));
  } catch (error) {
    await rmdir(folder);
    throw error;
  }
  for (const changed of [folder, archive, usersDir]) await syncFolder(changed);
  return folder;
}

/**
 * Moves what is left of the user's sessions and keys after they have been ended, so that a user who gets the name later
 * begins with none. NAME.quota.toml stays: the ledger keeps it in memory and would write it again, and what was used
 * under a name must neither vanish from the usage nor be given back by making the account anew.
 */
export async function archiveRecords(usersDir: string, name: string, folder: string): Promise<void> {
  for (const file of [`${name}.sessions.toml`, `${name}.keys.toml`]) {
    try {
      await rename(join(usersDir, file), join(folder, file));
    } catch (error) {
      if (fileErrorCode(error) !== "ENOENT") throw error;
    }
  }
  for (const changed of [folder, usersDir]) await syncFolder(changed);
}
