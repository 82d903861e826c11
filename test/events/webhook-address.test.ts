import { createServer } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { loginFailed } from "../support/events.ts";
import { sent, undelivered, useReceiver, useWebhook } from "../support/webhook.ts";

const receiver = useReceiver();

describe("the webhook's address", () => {
  /** Counts connections to a port of this machine, on all of its addresses. */
  async function useTrap(): Promise<{ readonly port: number; connections(): number }> {
    let connections = 0;
    const server = createServer((socket) => {
      connections += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, resolve));
    onTestFinished(() => void server.close());
    const bound = server.address();
    return { port: typeof bound === "object" && bound !== null ? bound.port : 0, connections: () => connections };
  }

  it.each(["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"])(
    "is not connected to where it is private: %s",
    async (host) => {
      const trap = await useTrap();
      const { webhook, log } = useWebhook(receiver().url, {
        url: `https://${host}:${trap.port}/`,
        allowPrivate: false,
      });
      webhook.sink(loginFailed());
      await undelivered(webhook, 1);
      expect(trap.connections()).toBe(0);
      expect(log.lines[0]?.facts.result).toMatch(/^connections to .+ are not allowed$/);
    },
  );

  it.each(["10.0.0.7", "169.254.169.254", "fd00::1", "::ffff:10.0.0.7"])(
    "is not connected to where one of a name's addresses is private: %s",
    async (address) => {
      const { webhook, log } = useWebhook(receiver().url, {
        url: "https://hooks.example.test/",
        allowPrivate: false,
        resolve: (_name, _options, callback) => {
          callback(null, [
            { address: "8.8.8.8", family: 4 },
            { address, family: address.includes(":") ? 6 : 4 },
          ]);
        },
      });
      webhook.sink(loginFailed());
      await undelivered(webhook, 1);
      expect(log.lines[0]?.facts.result).toBe(`connections to ${address} are not allowed`);
    },
  );

  it("has to be https unless private addresses are allowed", () => {
    expect(() => useWebhook(receiver().url, { allowPrivate: false })).toThrow("https");
  });

  it("is looked up once for each attempt, and the connection goes to what was looked up", async () => {
    const names: string[] = [];
    const { webhook } = useWebhook(receiver().url, {
      url: receiver().url.replace("127.0.0.1", "hooks.example.test"),
      resolve: (name, _options, callback) => {
        names.push(name);
        callback(null, [{ address: "127.0.0.1", family: 4 }]);
      },
    });
    webhook.sink(loginFailed());
    (await receiver().next()).respond(500, "no");
    const call = await receiver().next();
    call.respond(200, "ok");
    await sent(webhook, 1);
    expect(call.headers.host).toMatch(/^hooks\.example\.test:\d+$/);
    expect(names).toEqual(["hooks.example.test", "hooks.example.test"]);
  });

  it("that can't be looked up is tried again", async () => {
    let lookups = 0;
    const { webhook, log } = useWebhook(receiver().url, {
      url: "https://hooks.example.test/",
      resolve: (_name, _options, callback) => {
        lookups += 1;
        callback(Object.assign(new Error("getaddrinfo EAI_AGAIN"), { code: "EAI_AGAIN" }), []);
      },
    });
    webhook.sink(loginFailed());
    await undelivered(webhook, 1);
    expect([lookups, log.lines[0]?.facts.result]).toEqual([3, "EAI_AGAIN"]);
  });
});
