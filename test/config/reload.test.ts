import { expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { createReloader } from "../../src/config/reload.ts";

it("goes on with later reloads after one whose report has thrown", async () => {
  let reports = 0;
  let text = "[server]\nport = nonsense\n";
  const reloader = createReloader({
    read: () => text,
    parse: (next) => parseConfig(next, "config.toml"),
    started: { config: parseConfig("", "config.toml"), text: "" },
    prepare: () => Promise.resolve(() => undefined),
    report: () => {
      reports++;
      if (reports === 1) throw new Error("the sink is broken");
    },
    folder: "/",
    clock: { now: () => 0, monotonic: () => 0 },
    log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
  });

  expect(await reloader.reload("alice")).toMatchObject({ ok: false });
  text = "[chat]\njson_heartbeat = true\n";
  const result = await reloader.reload("alice");

  expect(result).toMatchObject({ ok: true, changes: [{ path: "chat.json_heartbeat", before: false, after: true }] });
});

function ignore(): void {
  // nothing to do
}
