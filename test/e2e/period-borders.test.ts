import { expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { eventually } from "../support/eventually.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, startProxy, userFile, type ProxyOptions } from "../support/start-proxy.ts";

interface Limit {
  readonly per: string;
  readonly used: number;
  readonly reserved: number;
}

interface Row {
  readonly day?: string;
  readonly hour?: string;
  readonly tokens: number;
}

const border = Date.parse("2026-11-30T00:00:00+08:00");
const periods = ["day", "week", "month", "total"];
/** On this Monday a day, a week and a month begin at once. */
const config = `[quota]
timezone = "Asia/Shanghai"
monthly_reset_day = 30
[quota.tiers.basic]
limits = [${periods.map((per) => `{ metric = "tokens", per = "${per}", max = 100000 }`).join(", ")}]
[groups.lab]
members = ["alice"]
limits = [${periods.map((per) => `{ metric = "tokens", per = "${per}", max = 100000 }`).join(", ")}]
[auth]
login_reuse_seconds = 0
[retry]
attempts = 1
`;

it("a request that crosses the border of a day, a week and a month counts where its first event came, to the unit", async () => {
  let now = border - 60_000;
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  const options: ProxyOptions = {
    config,
    upstreamUrl: upstream.url,
    clock: { now: () => now, monotonic: systemClock.monotonic },
    users: {
      alice: userFile("alice", alicePassword, 'default_group = "lab"\n'),
      boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
    },
  };
  let proxy = await startProxy(options);
  onTestFinished(() => proxy.dispose());

  const open = async () => {
    const asking = openStream(`${proxy.url}/chat/completions`, {
      headers: bearer(await proxy.login()),
      body: { model: "flash", stream: true, max_tokens: 10, messages: [{ role: "user", content: "What time is it?" }] },
    });
    const call = await upstream.next();
    await call.delta("Late");
    const client = await asking;
    await client.nextEvent();
    return { call, client };
  };
  const get = async (user: string, path: string): Promise<unknown> =>
    (await fetch(proxy.url + path, { headers: bearer(await proxy.login(user)) })).json();
  const limits = async (): Promise<readonly Limit[]> =>
    ((await get("alice", "/auth/quota")) as { limits: readonly Limit[] }).limits;
  const used = async (): Promise<Record<string, readonly number[]>> => {
    const all = await limits();
    return Object.fromEntries(
      periods.map((per) => [per, all.filter((limit) => limit.per === per).map((limit) => limit.used)]),
    );
  };
  const tokensBy = async (by: "day" | "hour"): Promise<readonly (readonly [string, number])[]> => {
    const { rows } = (await get("boss", `/admin/usage?by=${by}&from=2026-11-28&to=2026-12-01`)) as { rows: Row[] };
    return rows.map(({ day, hour, tokens }) => [day ?? hour ?? "", tokens]);
  };
  const nothingHeld = () =>
    eventually(async () => {
      expect((await limits()).every(({ reserved }) => reserved === 0)).toBe(true);
    });

  const [settled, failed] = [await open(), await open()];
  now = border + 5000;
  expect(await used()).toMatchObject({ day: [0, 0], week: [0, 0], month: [0, 0] });
  const later = await open();
  await settled.call.finish({ prompt_tokens: 20, completion_tokens: 30, total_tokens: 50 });
  await settled.client.rest();
  // What is given back belongs to the day on which it was charged.
  failed.call.reset();
  await failed.client.rest();
  await later.call.finish({ prompt_tokens: 4, completion_tokens: 3, total_tokens: 7 });
  await later.client.rest();
  await nothingHeld();

  const expected = { day: [7, 7], week: [7, 7], month: [7, 7], total: [57, 57] };
  const days = [
    ["2026-11-29", 50],
    ["2026-11-30", 7],
  ];
  const hours = [
    ["2026-11-29T23:00:00+08:00", 50],
    ["2026-11-30T00:00:00+08:00", 7],
  ];
  for (let starts = 0; starts < 2; starts++) {
    expect(await used()).toEqual(expected);
    expect(await tokensBy("day")).toEqual(days);
    expect(await tokensBy("hour")).toEqual(hours);
    const { folder } = proxy;
    await proxy.stop();
    proxy = await startProxy({ ...options, folder });
  }
});
