import { thisProcess } from "./this-process.ts";
import { runUserCli } from "./user-commands.ts";

process.exitCode = await runUserCli(process.argv.slice(2), thisProcess());
