import { render } from "preact";
import { App } from "./app.tsx";
import { startLocale } from "./lib/i18n.ts";
import { startLive } from "./lib/live.ts";
import { startRouter } from "./lib/router.ts";
import { startSession } from "./lib/session.ts";
import { startTheme } from "./lib/theme.ts";
import "./style.css";

// After an upgrade an open tab may ask for a file that is gone: the page is loaded anew, once.
window.addEventListener("vite:preloadError", () => {
  const last = Number(sessionStorage.getItem("panel.reloaded") ?? "0");
  if (Date.now() - last < 60_000) return;
  sessionStorage.setItem("panel.reloaded", String(Date.now()));
  window.location.reload();
});

startTheme();
startRouter();
startSession();
startLive();
await startLocale();
const root = document.getElementById("app");
if (root !== null) render(<App />, root);
