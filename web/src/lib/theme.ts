import { signal } from "@preact/signals";
import { keep, kept } from "./kept.ts";

export const themes = ["auto", "light", "dark"] as const;
type Theme = (typeof themes)[number];

/** The theme that was chosen; auto is the system's. */
export const theme = signal<Theme>(themes.find((one) => one === kept("theme")) ?? "auto");

export function setTheme(wanted: Theme): void {
  theme.value = wanted;
  document.documentElement.dataset.theme = wanted;
  keep("theme", wanted);
}

export function startTheme(): void {
  setTheme(theme.value);
}
