/** The address under which this panel, and so the proxy, was reached. */
function origin(): string {
  return window.location.origin;
}

/** A whole request, to paste into a shell. */
export function curlLine(key: string, model: string): string {
  const body = JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "Hello!" }] });
  return [
    `curl -N ${origin()}/v1/chat/completions \\`,
    `  -H "Authorization: Bearer ${key}" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d '${body}'`,
  ].join("\n");
}

/** Settings of clients, ready to paste. */
export function clientSnippets(
  key: string,
  model: string,
): readonly { readonly label: string; readonly text: string }[] {
  const url = origin();
  return [
    { label: "curl", text: curlLine(key, model) },
    {
      label: "OpenAI SDK · Python",
      text: `from openai import OpenAI

client = OpenAI(api_key="${key}", base_url="${url}/v1")
stream = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "Hello!"}],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="")`,
    },
    {
      label: "OpenAI SDK · JavaScript",
      text: `import OpenAI from "openai";

const client = new OpenAI({ apiKey: "${key}", baseURL: "${url}/v1" });
const stream = await client.chat.completions.create({
  model: "${model}",
  messages: [{ role: "user", content: "Hello!" }],
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");`,
    },
    {
      label: "Claude Code",
      text: `export ANTHROPIC_BASE_URL=${url}/anthropic
export ANTHROPIC_AUTH_TOKEN=${key}
export ANTHROPIC_MODEL=${model}
export ANTHROPIC_DEFAULT_HAIKU_MODEL=${model}
claude`,
    },
    {
      label: "Codex · ~/.codex/config.toml",
      text: `model = "${model}"
model_provider = "proxy"
web_search = "disabled"

[model_providers.proxy]
name = "proxy"
base_url = "${url}/v1"
wire_api = "responses"
env_key = "PROXY_KEY"      # export PROXY_KEY=${key}`,
    },
    {
      label: "Open WebUI, Cline, opencode",
      text: `Base URL: ${url}/v1\nAPI key:  ${key}\nModel:    ${model}`,
    },
  ];
}
