import { runBillCli } from "./bill-commands.ts";
import { runDoctorCli } from "./doctor-commands.ts";
import { runImportCli } from "./import-commands.ts";
import { runJournalCli } from "./journal-commands.ts";
import { runQuotaCli } from "./quota-commands.ts";
import { runStateCli } from "./state-commands.ts";
import { thisProcess } from "./this-process.ts";
import { runUserCli } from "./user-commands.ts";

/** Programs by the first argument, which `npm run user` and the like supply. */
const programs = new Map([
  ["user", runUserCli],
  ["quota", runQuotaCli],
  ["journal", runJournalCli],
  ["import", runImportCli],
  ["state", runStateCli],
  ["bill", runBillCli],
  ["doctor", runDoctorCli],
]);

const [name = "", ...args] = process.argv.slice(2);
const io = thisProcess();
const run = programs.get(name);
if (run === undefined) io.err(`usage: node dist/cli/main.js ${[...programs.keys()].join("|")} ...`);
process.exitCode = (await run?.(args, io)) ?? 2;
