import { delayed } from "../support/backends.ts";
import { openTestLedger } from "../support/ledger.ts";
import { tempDir } from "../support/temp-dir.ts";
import { describeLedger } from "./ledger.ts";

const open: Parameters<typeof describeLedger>[1] = (clock) => openTestLedger(tempDir(), clock);
describeLedger("the ledger in memory", open);
describeLedger("the ledger in memory, 3 ms late", delayed(open));
