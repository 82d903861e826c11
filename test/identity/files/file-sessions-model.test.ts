import { fc } from "../../support/fast-check.ts";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { AppError } from "../../../src/errors.ts";
import { createFaultyFiles } from "../../support/faulty-files.ts";
import { bob, day, laptop, useSessions } from "../session-support.ts";

/** What a session must do, in the plainest way: all of its tokens, and when each was exchanged. */
interface Model {
  readonly id: string;
  readonly tokens: string[];
  /** By token; absent for the last one. ms. */
  readonly exchangedAt: number[];
  readonly leewayUntil: number[];
  readonly openedAt: number;
  usedAt: number;
  ended: boolean;
}

const leeway = 10_000;

type Step =
  | { readonly do: "open" | "restart" }
  | { readonly do: "end"; readonly session: number }
  | { readonly do: "wait"; readonly ms: number }
  | {
      readonly do: "refresh";
      readonly session: number;
      readonly back: number;
      readonly times: number;
      readonly fails: boolean;
    };

const session = fc.nat(3);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.constant({ do: "open" } as const) },
  { weight: 4, arbitrary: fc.constant({ do: "restart" } as const) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("end" as const), session }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.constantFrom(1, 4_000, leeway - 1, leeway, 660_000, day, 7 * day),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant("refresh" as const),
      session,
      // How many exchanges the token is old.
      back: fc.constantFrom(0, 0, 0, 0, 1, 1, 2, 3),
      times: fc.constantFrom(1, 1, 1, 5),
      fails: fc.constantFrom(false, false, false, true),
    }),
  },
);

it("no order of refreshes, reuse, expiry, full disks, crashes and ends loses an honest session or keeps a stolen one", async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), play), { numRuns: 300 });
}, 120_000);

async function play(steps: readonly Step[]): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "sessions-model-"));
  const fileOps = createFaultyFiles();
  const test = await useSessions(dir, { fileOps });
  const { clock } = test;
  const models: Model[] = [];
  let reuses = 0;

  const isOver = ({ openedAt, usedAt, ended }: Model): boolean =>
    ended || clock.now() >= Math.min(openedAt + 30 * day, usedAt + 7 * day);

  /** What one refresh with a token must give: a token, or a code. Changes the model accordingly. */
  function expected(model: Model, at: number): "next" | "last" | "invalid_token" | "token_expired" {
    if (model.ended) return "invalid_token";
    // Again and again, until another login clears it away.
    if (isOver(model)) return "token_expired";
    const last = model.tokens.length - 1;
    if (at === last) return "next";
    if (clock.now() < (model.leewayUntil[at] ?? 0) && last - at <= 8) return "last";
    model.ended = true;
    reuses += 1;
    return "invalid_token";
  }

  async function refresh(token: string): Promise<string> {
    try {
      return (await test.sessions.refresh(token, laptop)).refreshToken;
    } catch (error) {
      if (error instanceof AppError) return error.code;
      throw error;
    }
  }

  async function refreshMany(model: Model, { back, times, fails }: Extract<Step, { do: "refresh" }>): Promise<void> {
    const at = Math.max(0, model.tokens.length - 1 - back);
    const token = model.tokens[at] ?? "";
    const outcome = expected(model, at);
    if (outcome === "next" && fails) {
      fileOps.fail("open", "ENOSPC");
      expect(await refresh(token)).toBe("storage_unavailable");
      return;
    }
    const answers = new Set(await Promise.all(Array.from({ length: times }, () => refresh(token))));
    if (outcome === "next") {
      expect(answers.size).toBe(1);
      const [next = ""] = answers;
      expect(next).toMatch(/^dsr_/);
      expect(model.tokens).not.toContain(next);
      model.tokens.push(next);
      model.exchangedAt[at] = clock.now();
      model.leewayUntil[at] = clock.now() + leeway;
      model.usedAt = clock.now();
    } else if (outcome === "last") expect([...answers]).toEqual([model.tokens.at(-1)]);
    else expect([...answers]).toEqual([outcome]);
  }

  /** A restart gives the leeway anew to what was exchanged shortly before, as far as it is in the file still. */
  async function restart(): Promise<void> {
    await test.restart();
    for (const { exchangedAt, leewayUntil } of models) {
      // What was past its leeway at the last exchange has been forgotten then.
      const lastExchange = Math.max(...exchangedAt, -Infinity);
      exchangedAt.forEach((at, index) => {
        const isKept = index === exchangedAt.length - 1 || (leewayUntil[index] ?? 0) > lastExchange;
        if (isKept && clock.now() - at < 600_000) leewayUntil[index] = clock.now() + leeway;
      });
    }
  }

  for (const one of steps) {
    const model = "session" in one ? models[one.session % Math.max(1, models.length)] : undefined;
    if (one.do === "wait") clock.advance(one.ms);
    else if (one.do === "restart") await restart();
    else if (one.do === "open") {
      const { sessionId: id, refreshToken } = await test.sessions.open(bob, laptop);
      const [openedAt, usedAt] = [clock.now(), clock.now()];
      models.push({ id, tokens: [refreshToken], exchangedAt: [], leewayUntil: [], openedAt, usedAt, ended: false });
      for (const old of models) if (isOver(old)) old.ended = true;
    } else if (model !== undefined && one.do === "refresh") await refreshMany(model, one);
    else if (model !== undefined) {
      await test.sessions.end("bob", model.id);
      model.ended = true;
    }
    const alive = models.filter((each) => !isOver(each)).map(({ id }) => id);
    expect((await test.sessions.list("bob")).map(({ id }) => id).sort()).toEqual(alive.sort());
    expect(test.events.filter(({ type }) => type === "session.reuse_detected")).toHaveLength(reuses);
  }
  await test.sessions.close();
  await rm(dir, { recursive: true });
}
