/**
 * Whether an Accept header asks for JSON and takes no events: what the SDKs of OpenAI send, streamed or not. Browsers
 * and command lines send a wildcard, which takes both.
 */
export function takesJsonAlone(accept: string | undefined): boolean {
  let json = false;
  for (const range of accept?.split(",") ?? []) {
    const [type = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    if (parameters.some(isZero)) continue;
    if (type === "*/*" || type === "text/*" || type === "text/event-stream") return false;
    if (type === "application/json" || type === "application/*") json = true;
  }
  return json;
}

/** A weight of 0 means "not acceptable" (RFC 9110, 12.4.2). */
function isZero(parameter: string): boolean {
  const [name = "", value = ""] = parameter.split("=", 2);
  return name.trim() === "q" && Number(value) === 0;
}
