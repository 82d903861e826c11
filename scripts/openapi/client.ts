// A client made by openapi-typescript logs in, lists the models, and reads a chat as one JSON and as a stream.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./schema.d.ts";

const baseUrl = process.env.PROXY_URL ?? "";
const client = createClient<paths>({ baseUrl });
const { data: login } = await client.POST("/auth/login", {
  body: { username: process.env.PROXY_USER ?? "", password: process.env.PROXY_PASSWORD ?? "" },
});
assert(login);
client.use({
  onRequest({ request }) {
    request.headers.set("authorization", `Bearer ${login.access_token}`);
  },
});

const { data: models } = await client.GET("/v1/models");
const [model] = models?.data ?? [];
assert(model);
const body = { model: model.id, messages: [{ role: "user", content: "Say hello." }] };

const { data: chat, error } = await client.POST("/v1/chat/completions", { body });
assert(chat, JSON.stringify(error));
assert("choices" in chat && chat.choices[0]?.finish_reason === "stop");

const { data: stream } = await client.POST("/v1/chat/completions", {
  body: { ...body, stream: true },
  parseAs: "stream",
});
assert(stream);
let text = "";
for await (const piece of stream.pipeThrough(new TextDecoderStream())) text += piece;
assert(text.endsWith("data: [DONE]\n\n"));

const { data: nobody, error: refusal } = await client.GET("/admin/users");
assert(nobody === undefined && refusal?.error.code === "forbidden");
console.log(`openapi-typescript: ${text.split("\n\n").length - 1} events`);
