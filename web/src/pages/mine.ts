export { Account } from "./account.tsx";
export { Chat } from "./chat.tsx";
export { Home } from "./home.tsx";
export { Keys } from "./keys.tsx";
export { MyUsage } from "./my-usage.tsx";
export { Redeem } from "./redeem.tsx";
export { Setup } from "./setup.tsx";
