import { runQuotaCli } from "./quota-commands.ts";
import { thisProcess } from "./this-process.ts";

process.exitCode = await runQuotaCli(process.argv.slice(2), thisProcess());
