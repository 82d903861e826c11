import { later, slow } from "../support/backends.ts";
import { openTestLedger } from "../support/ledger.ts";
import { tempDir } from "../support/temp-dir.ts";
import { describeLedger } from "./ledger.ts";

describeLedger("the ledger in memory", (clock) => openTestLedger(tempDir(), clock));
describeLedger("the ledger in memory, 3 ms late", async (clock) =>
  slow(await openTestLedger(tempDir(), clock), later(3)),
);
