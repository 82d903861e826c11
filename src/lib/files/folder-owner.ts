import { lchown, lstat } from "node:fs/promises";
import { dirname } from "node:path";
import { fileErrorCode } from "./file-ops.ts";

/**
 * Gives a file or folder to the owner of the folder that it is in: after a command that was run with sudo the server,
 * which is not root, must still be able to use it.
 */
export async function giveToFolderOwner(path: string): Promise<void> {
  const [file, folder] = await Promise.all([lstat(path), lstat(dirname(path))]);
  if (file.uid === folder.uid) return;
  await lchown(path, folder.uid, folder.gid).catch((error: unknown) => {
    // Only root may give files away; anyone else wrote a file of their own in a folder that they share.
    if (fileErrorCode(error) !== "EPERM") throw error;
  });
}
