/** A complete error response. */
export interface Refusal {
  /** HTTP status. */
  readonly status: number;
  readonly contentType: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Thrown if a request can't be served; has the response to send. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.body);
    this.refusal = refusal;
  }
}

/** DeepSeek's error body. `code` repeats `type` in all but a few cases, as on the real wire. */
export function errorJson(message: string, type: string, code: string = type): string {
  return JSON.stringify({ error: { message, type, param: null, code } });
}

/** A refusal with DeepSeek's JSON body. */
export function refuse(
  status: number,
  type: string,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Refusal {
  return { status, contentType: "application/json", headers, body: errorJson(message, type) };
}

/** DeepSeek's gateway responds to a missing key in plain text, not JSON. */
export const missingKey: Refusal = {
  status: 401,
  contentType: "text/plain; charset=utf-8",
  headers: {},
  body: "Authentication Fails (governor)",
};

/** The page of an nginx in front of a dead upstream. */
export const badGatewayPage: Refusal = {
  status: 502,
  contentType: "text/html",
  headers: {},
  body: "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
};

/** Zhipu's error: a string code, no type. 1113 is a 429 that means no balance. */
export function refuseLikeZhipu(code: number): Refusal {
  return {
    status: zhipuStatus(code),
    contentType: "application/json; charset=UTF-8",
    headers: {},
    body: JSON.stringify({ error: { code: String(code), message: zhipuMessages.get(code) ?? "请求失败" } }),
  };
}

const zhipuMessages: ReadonlyMap<number, string> = new Map([
  [1002, "Authorization Token非法，请确认Authorization Token正确传递。"],
  [1113, "您的账户已欠费，请充值后重试。"],
  [1210, "API 调用参数有误，请检查文档。"],
  [1211, "模型不存在，请检查模型代码。"],
  [1261, "Prompt 超长"],
  [1301, "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语，感谢您的配合。"],
  [1302, "您当前使用该API的并发数过高，请降低并发，或联系客服增加限额。"],
  [1305, "当前API请求过多，请稍后重试。"],
]);

function zhipuStatus(code: number): number {
  if (code >= 1000 && code <= 1003) return 401;
  if (code === 1113 || (code >= 1302 && code <= 1312)) return 429;
  if (code === 1200) return 500;
  return 400;
}
