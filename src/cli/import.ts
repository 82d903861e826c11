import { runImportCli } from "./import-commands.ts";
import { thisProcess } from "./this-process.ts";

process.exitCode = await runImportCli(process.argv.slice(2), thisProcess());
