import { afterEach, describe, expect, it } from "vitest";
import { argon2id } from "../../src/identity/passwords/password.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

describe("logging in", () => {
  let proxy: RunningProxy;

  afterEach(() => proxy.dispose());

  const logIn = (username: string, password: string): Promise<Response> =>
    post(`${proxy.url}/auth/login`, { username, password });

  it("tells a wrong password and an unknown user by nothing in the answer", async () => {
    proxy = await startProxy();
    const known = await answerOf(await logIn("alice", "wrong password"));
    const unknown = await answerOf(await logIn("nobody", "wrong password"));
    const [knownError, unknownError] = [known, unknown].map((answer) =>
      expectRefusal(proxy, answer, "invalid_credentials"),
    );
    expect({ ...unknownError, trace_id: "" }).toEqual({ ...knownError, trace_id: "" });
    const names = ({ headers }: typeof known): string[] => Object.keys(headers).sort();
    expect(names(unknown)).toEqual(names(known));
    expect(unknown.headers["content-length"]).toBe(known.headers["content-length"]);
  });

  it("says that an account is disabled only to who knows its password", async () => {
    proxy = await startProxy({ users: { alice: userFile("alice", alicePassword, "is_active = false\n") } });
    expectRefusal(proxy, await answerOf(await logIn("alice", "wrong password")), "invalid_credentials");
    expectRefusal(proxy, await answerOf(await logIn("alice", alicePassword)), "account_disabled");
  });

  it("refuses at once what comes past the queue when 200 come together, and chats go on meanwhile", async () => {
    const upstream = await startScriptedUpstream();
    proxy = await startProxy({
      upstreamUrl: upstream.url,
      config: "[auth]\nmax_waiting_logins = 20\n[security]\nlogin_free_failures = 1000\n",
    });
    const token = await proxy.login();
    const chat = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }] };
    const opening = openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body: chat });
    const call = await upstream.next();
    await call.delta("0");
    const client = await opening;

    let answered = 0;
    const logins = Array.from({ length: 200 }, async (_, index) => {
      const answer = await answerOf(await logIn("alice", `wrong password ${index}`));
      answered++;
      return answer;
    });
    // One event after another, each only once the last is through: none waits until the logins are done.
    let events = 0;
    while (answered < 200) {
      await call.delta(String(events++));
      await client.nextEvent();
    }
    const statuses = (await Promise.all(logins)).map((answer) => {
      expectRefusal(proxy, answer, answer.status === 429 ? "login_busy" : "invalid_credentials");
      return answer.status;
    });
    // Two run and twenty wait at any time; how many get their turn depends on how fast the requests come in.
    expect(statuses.filter((status) => status === 401).length).toBeGreaterThanOrEqual(22);
    expect(statuses.filter((status) => status === 429).length).toBeGreaterThan(0);
    expect(events).toBeGreaterThan(10);
    await call.finish();
    expect((await client.rest()).at(-1)?.data).toBe("[DONE]");
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    const count = (result: string): number =>
      Number(new RegExp(`^login_attempts_total\\{result="${result}"\\} (\\d+)$`, "m").exec(metrics)?.[1]);
    expect([count("success"), count("failure") + count("blocked")]).toEqual([1, 200]);
    await upstream.close();
  });

  it("makes one argon2 run of one user's logins at the same time, and one token", async () => {
    // With a queue of one, three separate runs could not all be let in.
    proxy = await startProxy({ config: "[auth]\nmax_waiting_logins = 1\nmax_hashes = 1\n", hasher: argon2id });
    const tokens = await Promise.all(Array.from({ length: 50 }, () => proxy.login()));
    expect(new Set(tokens).size).toBe(1);
    expect(await proxy.login()).toBe(tokens[0]);
  });

  it("gives tokens of their own to different users with the same password", async () => {
    const users = { alice: userFile("alice", alicePassword), bob: userFile("bob", alicePassword) };
    proxy = await startProxy({ users });
    const [alice, bob] = await Promise.all([proxy.login("alice"), proxy.login("bob")]);
    expect(alice).not.toBe(bob);
    const quota = await fetch(`${proxy.url}/auth/quota`, { headers: bearer(bob) });
    expect(await quota.json()).toMatchObject({ username: "bob" });
  });

  it("answers as OAuth does, and may not be cached", async () => {
    proxy = await startProxy();
    const answer = await logIn("alice", alicePassword);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    const body = (await answer.json()) as Record<string, unknown>;
    expect(body).toMatchObject({ token_type: "Bearer", access_token: body.token });
    expect(body.expires_in).toBeGreaterThan(890);
  });
});
