import { expect, it, onTestFinished } from "vitest";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";

/** The lines of the log that belong to a response. */
function linesOf(proxy: RunningProxy, response: Response): readonly { readonly level: string; readonly msg: string }[] {
  const traceId = response.headers.get("x-request-id") ?? "";
  return proxy.logLines
    .filter((line) => line.includes(traceId))
    .map((line) => JSON.parse(line) as { level: string; msg: string })
    .filter(({ level }) => level === "error" || level === "warn");
}

it("a request that fails with what is stored says so, and the log has the reason once, under its id", async () => {
  const lost = () => Promise.reject(new Error("the connection is lost"));
  const proxy = await startProxy({
    backends: ({ apiKeys, ledger }) => ({
      apiKeys: { ...apiKeys, list: lost },
      ledger: { ...ledger, reserve: lost },
    }),
  });
  onTestFinished(() => proxy.dispose());
  const headers = { ...bearer(await proxy.login()), "content-type": "application/json" };
  const chat = JSON.stringify({ model: "sim-fast", messages: [{ role: "user", content: "hi" }] });
  const calls: readonly (readonly [string, RequestInit])[] = [
    ["/auth/keys", { headers }],
    ["/v1/chat/completions", { headers, method: "POST", body: chat }],
  ];
  for (const [path, call] of calls) {
    const response = await fetch(`${proxy.url}${path}`, call);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({
      error: {
        code: "storage_unavailable",
        message: "What the proxy stores cannot be read or written now. Try again.",
      },
    });
    const message = "a request failed because the storage is unavailable";
    expect(linesOf(proxy, response), path).toMatchObject([
      { level: "error", msg: message, err: { message: "the connection is lost" } },
    ]);
  }
});
