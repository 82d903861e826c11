import { text } from "node:stream/consumers";
import { runUserCli } from "./user-commands.ts";

process.exitCode = await runUserCli(process.argv.slice(2), {
  env: process.env,
  cwd: process.cwd(),
  readStdin: () => text(process.stdin),
  out: (line) => {
    process.stdout.write(`${line}\n`);
  },
  err: (line) => {
    process.stderr.write(`${line}\n`);
  },
});
