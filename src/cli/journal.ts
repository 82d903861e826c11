import { runJournalCli } from "./journal-commands.ts";
import { thisProcess } from "./this-process.ts";

process.exitCode = await runJournalCli(process.argv.slice(2), thisProcess());
