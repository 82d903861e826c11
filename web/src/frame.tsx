import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { change } from "./lib/api.ts";
import { startKeyboard } from "./lib/keyboard.ts";
import { duration, zone } from "./lib/format.ts";
import { locale, setLocale, t } from "./lib/i18n.ts";
import { live } from "./lib/live.ts";
import { entries } from "./lib/menu.ts";
import { hrefOf, navigate, route } from "./lib/router.ts";
import { loggedOut, may, session } from "./lib/session.ts";
import { setTheme, theme, themes } from "./lib/theme.ts";
import { Dialog } from "./ui/dialog.tsx";
import { attempt } from "./ui/toast.tsx";

/** Menu, search and switches around a page. */
export function Frame({ children }: { readonly children: ComponentChildren }) {
  const menuOpen = useSignal(false);
  const helpOpen = useSignal(false);
  const me = session.value;
  const { path } = route.value;
  useEffect(() => startKeyboard(() => (helpOpen.value = true)), []);
  useEffect(() => {
    menuOpen.value = false;
  }, [path]);
  const seen = entries.filter((entry) => may(entry.needs));
  const section = (title: string, own: boolean) => {
    const links = seen.filter(({ needs }) => (needs === "use") === own);
    if (links.length === 0) return null;
    return (
      <>
        <h2 class="menu-title">{title}</h2>
        <ul>
          {links.map(({ name, word }) => (
            <li key={name}>
              <a href={hrefOf(`/${name}`)} aria-current={path.split("/")[1] === name ? "page" : undefined}>
                {t(word)}
              </a>
            </li>
          ))}
        </ul>
      </>
    );
  };
  return (
    <div class="frame">
      <a class="skip" href="#main">
        {t("skip")}
      </a>
      <header class="top">
        <button
          type="button"
          class="quiet menu-button"
          aria-expanded={menuOpen.value}
          aria-controls="menu"
          aria-label={t("menu")}
          onClick={() => (menuOpen.value = !menuOpen.value)}
        >
          ☰
        </button>
        <a class="brand" href={hrefOf("/")}>
          {me?.title}
        </a>
        {may("audit") && <SearchBox />}
        <span class="grow" />
        <LiveMark />
        <button
          type="button"
          class="quiet"
          title={t("language")}
          lang={locale.value === "zh" ? "en" : "zh-CN"}
          onClick={() => void setLocale(locale.value === "zh" ? "en" : "zh")}
        >
          {t("otherLanguage")}
        </button>
        <button
          type="button"
          class="quiet wide-only"
          title={t("theme")}
          onClick={() => {
            setTheme(themes[(themes.indexOf(theme.value) + 1) % themes.length] ?? "auto");
          }}
        >
          {t(`theme_${theme.value}`)}
        </button>
        <button type="button" class="quiet wide-only" aria-label={t("help")} onClick={() => (helpOpen.value = true)}>
          ?
        </button>
        <button type="button" class="quiet" onClick={() => void attempt(logout)}>
          {t("logout")}
        </button>
      </header>
      <nav id="menu" class={menuOpen.value ? "open" : ""} aria-label={t("menu")}>
        {section(t("menuOperate"), false)}
        {section(t("menuMine"), true)}
        <p class="note menu-foot">
          {me?.user} · {zone()}
          <br />
          {me?.version}
        </p>
      </nav>
      <main id="main" tabIndex={-1}>
        {me?.simulated === true && (
          <div class="banner" role="note">
            <b>{t("simulatedTitle")}</b> {may("audit") ? t("simulatedOperator") : t("simulatedUser")}{" "}
            {may("audit") && <a href={hrefOf("/setup?first=1")}>{t("simulatedHow")}</a>}
          </div>
        )}
        {children}
      </main>
      {helpOpen.value && (
        <Dialog title={t("keyboard")} onClose={() => (helpOpen.value = false)}>
          <dl class="keys">
            <dt>
              <kbd>/</kbd>
            </dt>
            <dd>{t("search")}</dd>
            <dt>
              <kbd>j</kbd> <kbd>k</kbd>
            </dt>
            <dd>{t("keyRows")}</dd>
            <dt>
              <kbd>Esc</kbd>
            </dt>
            <dd>{t("keyEsc")}</dd>
            {seen.map(({ letter, word }) => [
              <dt key={`${letter}-key`}>
                <kbd>g</kbd> <kbd>{letter}</kbd>
              </dt>,
              <dd key={`${letter}-word`}>{t(word)}</dd>,
            ])}
          </dl>
        </Dialog>
      )}
    </div>
  );
}

async function logout(): Promise<void> {
  await change("POST", "/panel/api/logout");
  loggedOut();
  navigate("/");
}

/** One box for whatever an operator has in the clipboard: a request's id, a user, a key. */
function SearchBox() {
  const find = (text: string): void => {
    if (text === "") return;
    const page = entries.find(({ name, word }) => text === name || text.toLowerCase() === t(word).toLowerCase());
    if (page !== undefined) navigate(`/${page.name}`);
    else if (/^[a-z0-9][a-z0-9_-]{0,31}$/.test(text) && !text.startsWith("dsp_")) navigate(`/users?search=${text}`);
    else if (text.startsWith("dsp_")) navigate(`/requests?key_id=${encodeURIComponent(keyId(text))}`);
    else navigate(`/requests?request_id=${encodeURIComponent(text)}`);
  };
  return (
    <form
      role="search"
      class="search"
      onSubmit={(event) => {
        event.preventDefault();
        const input = event.currentTarget.elements.namedItem("find");
        if (input instanceof HTMLInputElement) find(input.value.trim());
      }}
    >
      <input
        type="search"
        name="find"
        list="find-pages"
        data-search
        aria-label={t("searchAll")}
        // There is no room for more on a phone.
        placeholder={t(window.matchMedia("(max-width: 760px)").matches ? "search" : "searchAll")}
      />
      <datalist id="find-pages">
        {entries
          .filter((entry) => may(entry.needs))
          .map(({ name, word }) => (
            <option key={name} value={t(word)} />
          ))}
      </datalist>
    </form>
  );
}

/** The id within a key's text: dsp_ID_SECRET. */
function keyId(text: string): string {
  return text.split("_")[1] ?? text;
}

function LiveMark() {
  const { state, since } = live.value;
  if (state === "off") return null;
  return (
    <span class={`badge ${state === "on" ? "good" : "warn"}`} role="status">
      {state === "on"
        ? t("live")
        : state === "connecting"
          ? t("connecting")
          : t("stale", { age: since === 0 ? "–" : duration(Date.now() - since) })}
    </span>
  );
}
