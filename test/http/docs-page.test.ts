import { expect, it } from "vitest";
import { docsPage } from "../../src/http/docs-page.ts";

const hostile = `<script>alert("1")</script> & 'x'`;

it("shows what an operation takes and answers, as text whatever it holds", () => {
  const schema = { type: "string", description: hostile };
  const page = docsPage({
    info: { title: "A proxy", version: "1.2.3", description: hostile },
    paths: {
      "/x/{name}": {
        post: {
          tags: ["things"],
          summary: hostile,
          security: [],
          parameters: [{ name: "name", in: "path", required: true, description: hostile, schema }],
          requestBody: { content: { "application/json": { schema } } },
          responses: { 200: { description: hostile, content: { "application/json": { schema } } }, 204: {} },
        },
      },
      "/y": { get: {} },
    },
  });
  expect(page).not.toContain("<script");
  expect(page).not.toContain('alert("1")');
  for (const text of [
    "A proxy 1.2.3",
    "<h2>things</h2>",
    "<h2>other</h2>",
    "/x/{name}",
    "(no token needed)",
    "<b>204",
  ]) {
    expect(page).toContain(text);
  }
  expect(page.match(/&lt;script&gt;/g)?.length).toBeGreaterThanOrEqual(6);
});
