import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { AlertOperations } from "../../admin/alert-operations.ts";
import { errorSchema } from "../schemas/errors.ts";
import { actorOfRequest } from "./admin-request.ts";

const testResponse = z.object({
  delivered: z.boolean(),
  result: z
    .union([z.int(), z.string()])
    .describe("The HTTP status of the webhook, or a short reason if there was none: ECONNREFUSED, timeout, ..."),
});

/** POST /admin/alerts/test: whether alerts arrive. */
export function registerAlertsRoute(app: FastifyInstance, alerts: AlertOperations): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    "/admin/alerts/test",
    {
      config: { access: "admin" },
      schema: {
        summary: "Send a test alert to the webhook, signed as alerts are",
        tags: ["admin"],
        body: z.strictObject({}).nullish(),
        response: { 200: testResponse, 409: errorSchema },
      },
    },
    (request) => alerts.test(actorOfRequest(request)),
  );
}
