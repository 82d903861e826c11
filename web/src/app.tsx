import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Frame } from "./frame.tsx";
import { get, type ApiError } from "./lib/api.ts";
import { t } from "./lib/i18n.ts";
import { toApiError } from "./lib/load.ts";
import { entries, type PageProps } from "./lib/menu.ts";
import { navigate, route } from "./lib/router.ts";
import { factorAsked, loginAsked, may, session, type Me } from "./lib/session.ts";
import { LoginForm, NewPassword } from "./login.tsx";
import { FactorNeeded } from "./second-factor.tsx";
import { ErrorNote } from "./ui/basics.tsx";
import { Dialog } from "./ui/dialog.tsx";
import { Toasts } from "./ui/toast.tsx";

/** Who is logged in decides: the login, a new password, or the page of the address. */
export function App() {
  const asked = useSignal(false);
  useEffect(() => {
    get<Me>("/panel/api/me").then(
      (me) => {
        session.value = me;
        asked.value = true;
      },
      () => {
        asked.value = true;
      },
    );
  }, []);
  const me = session.value;
  useEffect(() => {
    document.title = me === null ? "deepseek-proxy" : me.title;
  }, [me?.title]);
  if (!asked.value) return <main class="blank" aria-busy="true" />;
  if (me === null) {
    return (
      <main class="login">
        <LoginForm />
      </main>
    );
  }
  return (
    <>
      <Frame>
        {/* Everything that it asks for would be refused, and its errors would stand there. */}
        {!me.must_change_password && !factorAsked.value && <CurrentPage />}
      </Frame>
      {me.must_change_password && <NewPassword />}
      {factorAsked.value && !me.must_change_password && <FactorNeeded />}
      {loginAsked.value && (
        <Dialog title={t("loginAgain")}>
          <p class="note">{t("loginAgainNote")}</p>
          <LoginForm user={me.user} />
        </Dialog>
      )}
      <Toasts />
    </>
  );
}

function CurrentPage() {
  const [name = "", ...rest] = route.value.path.split("/").filter((part) => part !== "");
  const home = may("audit") ? "overview" : "home";
  const wanted = name === "" ? home : name;
  const entry = entries.find((one) => one.name === wanted && may(one.needs));
  const [page, setPage] = useState<{ readonly name: string; readonly Page: ComponentType<PageProps> }>();
  const [error, setError] = useState<ApiError>();
  useEffect(() => {
    if (name === "") navigate(`/${home}`, { replace: true });
  }, [name]);
  useEffect(() => {
    entry?.load().then(
      (Page) => {
        setPage({ name: wanted, Page });
      },
      (failure: unknown) => {
        setError(toApiError(failure));
      },
    );
  }, [entry?.name]);
  if (error !== undefined) return <ErrorNote error={error} />;
  if (entry === undefined) return <h1>{t("noSuchPage")}</h1>;
  if (page?.name !== wanted) return <div class="blank" aria-busy="true" />;
  return <page.Page key={wanted} rest={rest.map(decodeURIComponent)} />;
}
