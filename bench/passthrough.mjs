// What the proxy is measured against: fastify in front, undici behind, and nothing between but the bytes. It heeds
// backpressure and a client that leaves, because anything that streams has to; it checks and counts nothing.
import Fastify from "fastify";
import { Pool } from "undici";

const upstream = new Pool(process.env.UPSTREAM_URL, { pipelining: 1 });
const app = Fastify({ logger: false, bodyLimit: 8 << 20 });

app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => done(null, body));

class Relay {
  #raw;
  #controller;
  #ended = false;

  constructor(raw) {
    this.#raw = raw;
    raw.on("drain", () => this.#controller?.resume());
    raw.on("close", () => {
      if (!this.#ended) this.#controller?.abort(new Error("the client has left"));
    });
  }

  onRequestStart(controller) {
    this.#controller = controller;
  }

  onResponseStart(_controller, status, headers) {
    this.#raw.writeHead(status, { "content-type": headers["content-type"] });
  }

  onResponseData(controller, bytes) {
    if (!this.#raw.write(bytes)) controller.pause();
  }

  onResponseEnd() {
    this.#ended = true;
    this.#raw.end();
  }

  onResponseError(_controller, error) {
    this.#ended = true;
    if (this.#raw.headersSent) this.#raw.destroy(error);
    else this.#raw.writeHead(502).end();
  }
}

app.post("/v1/chat/completions", (request, reply) => {
  reply.hijack();
  upstream.dispatch(
    {
      method: "POST",
      path: "/v1/chat/completions",
      headers: { authorization: "Bearer bench", "content-type": "application/json", "accept-encoding": "identity" },
      body: request.body,
    },
    new Relay(reply.raw),
  );
});

console.log(JSON.stringify({ event: "listening", url: await app.listen({ host: "127.0.0.1", port: 0 }) }));
