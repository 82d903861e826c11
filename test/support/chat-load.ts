import { openStream } from "./sse-client.ts";
import { bearer } from "./start-proxy.ts";

/** What one chat got to see before it ended or broke off. */
export interface SeenChat {
  readonly user: string;
  /** 0 where no answer came. */
  status: number;
  /** Data events seen; a whole JSON counts as one. */
  events: number;
  /** Whether [DONE], or a whole JSON, was seen. */
  done: boolean;
  /** The usage that was seen; null where none was. */
  usage: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
}

/** Chats one after another, and many at once, until told to stop. */
export interface ChatLoad {
  /** All that was ever begun, in that order. */
  readonly chats: readonly SeenChat[];
  /** Resolves when `count` data events have been seen in all. */
  seen(count: number): Promise<void>;
  /** Lets running chats end and begins no more. */
  stop(): Promise<void>;
}

export interface LoadOptions {
  readonly url: string;
  readonly workers: readonly { readonly user: string; readonly token: string; readonly body: string }[];
}

/** Begins one chat for each worker, and the next whenever one is over; a worker ends with its first failed chat. */
export function startChatLoad({ url, workers }: LoadOptions): ChatLoad {
  const chats: SeenChat[] = [];
  const waiters: { readonly count: number; readonly resolve: () => void }[] = [];
  let total = 0;
  let stopped = false;

  function sawEvent(chat: SeenChat): void {
    chat.events++;
    total++;
    for (const { resolve } of waiters.filter(({ count }) => total >= count)) resolve();
  }

  async function work({ user, token, body }: LoadOptions["workers"][number]): Promise<void> {
    let whole = true;
    while (whole && !stopped) {
      const chat: SeenChat = { user, status: 0, events: 0, done: false, usage: null };
      chats.push(chat);
      // A killed server breaks connections; what had been seen by then is what counts.
      await chatOnce(url, token, body, chat, sawEvent).catch(() => undefined);
      whole = chat.done;
    }
  }

  const running = Promise.all(workers.map(work));
  return {
    chats,
    seen: (count) =>
      new Promise((resolve) => {
        if (total >= count) resolve();
        else waiters.push({ count, resolve });
      }),
    async stop() {
      stopped = true;
      await running;
    },
  };
}

async function chatOnce(
  url: string,
  token: string,
  body: string,
  chat: SeenChat,
  sawEvent: (chat: SeenChat) => void,
): Promise<void> {
  const client = await openStream(`${url}/chat/completions`, { headers: bearer(token), body });
  chat.status = client.status;
  if (client.headers["content-type"]?.startsWith("text/event-stream") === true) {
    for (let event = await client.nextEvent(); event !== undefined; event = await client.nextEvent()) {
      if (event.data === "[DONE]") chat.done = true;
      else if (event.json?.choices !== undefined) sawEvent(chat);
      chat.usage = (event.json?.usage as SeenChat["usage"] | undefined) ?? chat.usage;
    }
  } else if ((await client.ended) === "complete" && client.status === 200) {
    chat.done = true;
    chat.usage = (JSON.parse(client.text) as Pick<SeenChat, "usage">).usage;
    sawEvent(chat);
  }
}
