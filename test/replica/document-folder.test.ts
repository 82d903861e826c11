import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createDocumentFolder } from "../../src/replica/document-folder.ts";
import { tempDir } from "../support/temp-dir.ts";

test("shows no user file with a password in plain text, whatever else is wrong with it", async () => {
  const folder = tempDir();
  const hash = 'password_hash = "$argon2id$..."\n';
  const files: Record<string, string> = {
    "ann.toml": `username = "ann"\n${hash}`,
    "tier.toml": 'username = "tier"\npassword = "tell nobody"\nquota_tier = "gone"\n',
    "quoted.toml": 'username = "quoted"\n  "password"="tell nobody"\n',
    "broken.toml": 'username = "broken\npassword = "tell nobody" oops\n',
    "note.toml": `username = "note"\n${hash}# password = "is not here"\nban_reason = "password = lost"\n`,
    "ann.keys.toml": 'password = "a name that means nothing here"\n',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  mkdirSync(join(folder, "groups"));
  writeFileSync(join(folder, "groups", "red.toml"), "members = []\n");

  const shown: string[] = [];
  for await (const { kind, name } of createDocumentFolder(folder).all()) shown.push(`${kind}/${name}`);
  expect(shown.sort()).toEqual(["groups/red", "keys/ann", "users/ann", "users/note"]);
});
