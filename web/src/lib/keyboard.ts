import { entries } from "./menu.ts";
import { navigate } from "./router.ts";
import { may } from "./session.ts";

/** / searches, g and a letter goes to a page, j and k walk along rows, ? helps; returns what ends it. */
export function startKeyboard(help: () => void): () => void {
  let afterG = 0;
  const onKey = (event: KeyboardEvent): void => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") !== null) return;
    if (target instanceof HTMLElement && target.matches("input, textarea, select")) {
      if (key === "Escape") target.blur();
      return;
    }
    if (Date.now() < afterG) {
      afterG = 0;
      const entry = entries.find(({ letter, needs }) => letter === key && may(needs));
      if (entry !== undefined) {
        event.preventDefault();
        navigate(`/${entry.name}`);
      }
      return;
    }
    if (key === "g") afterG = Date.now() + 1500;
    else if (key === "?") help();
    else if (key === "/") {
      const box =
        document.querySelector<HTMLInputElement>("main [data-search]") ??
        document.querySelector<HTMLInputElement>("[data-search]");
      if (box === null) return;
      event.preventDefault();
      box.focus();
    } else if (key === "j" || key === "k") {
      const rows = [...document.querySelectorAll<HTMLElement>("main tbody tr a, main tbody tr button")].filter(
        (link, index, all) => all.findIndex((other) => other.closest("tr") === link.closest("tr")) === index,
      );
      const at = rows.findIndex((link) => link.closest("tr") === document.activeElement?.closest("tr"));
      rows[Math.max(0, Math.min(rows.length - 1, at + (key === "j" ? 1 : -1)))]?.focus();
    }
  };
  document.addEventListener("keydown", onKey);
  return () => {
    document.removeEventListener("keydown", onKey);
  };
}
