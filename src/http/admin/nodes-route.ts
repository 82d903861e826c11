import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { isoTime } from "./admin-request.ts";

/** A process among all that share the state. */
interface NodeView {
  readonly id: string;
  readonly startedAt: number;
  readonly version: string;
  readonly address: string;
  readonly config: string;
  readonly silentMs: number;
  readonly isLeader: boolean;
  readonly isThis: boolean;
}

const nodesResponse = z.object({
  shared: z.boolean().describe("Whether several processes share the state; otherwise the list is empty."),
  nodes: z.array(
    z.object({
      id: z.string(),
      this: z.boolean().describe("Whether it has answered this request."),
      leader: z.boolean(),
      version: z.string(),
      address: z.string(),
      config: z.string().describe("A digest: processes with another one run with another config."),
      started_at: z.iso.datetime(),
      silent_ms: z.int().describe("Since its last sign of life."),
    }),
  ),
});

/** GET /admin/nodes: the processes that share the state. @param nodes undefined: this one has a state of its own */
export function registerNodesRoute(
  app: FastifyInstance,
  nodes: (() => Promise<readonly NodeView[]>) | undefined,
): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/nodes",
    {
      config: { access: "admin" },
      schema: { summary: "The processes that share the state", tags: ["admin"], response: { 200: nodesResponse } },
    },
    async () => ({
      shared: nodes !== undefined,
      nodes: ((await nodes?.()) ?? []).map(
        ({ startedAt, silentMs, isLeader, isThis, id, version, address, config }) => {
          const facts = { id, version, address, config, silent_ms: silentMs };
          return { ...facts, this: isThis, leader: isLeader, started_at: isoTime(startedAt) };
        },
      ),
    }),
  );
}
