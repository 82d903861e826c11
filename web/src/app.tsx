import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Frame } from "./frame.tsx";
import { ApiError, get } from "./lib/api.ts";
import { t } from "./lib/i18n.ts";
import { toApiError, useLoad } from "./lib/load.ts";
import { entries, type PageProps } from "./lib/menu.ts";
import { navigate, route } from "./lib/router.ts";
import { factorAsked, loggedIn, loginAsked, may, session, type Me } from "./lib/session.ts";
import { LoginForm, NewPassword } from "./login.tsx";
import { FactorNeeded } from "./second-factor.tsx";
import { ErrorNote } from "./ui/basics.tsx";
import { Dialog } from "./ui/dialog.tsx";
import { Toasts } from "./ui/toast.tsx";

/** Who is logged in decides: the login, a new password, or the page of the address. */
export function App() {
  const asked = useLoad("me", whoIsThere);
  const me = session.value;
  useEffect(() => {
    document.title = me === null ? "deepseek-proxy" : me.title;
  }, [me?.title]);
  if (me === null && asked.error !== undefined) {
    // Not the login form: an answer is missing, and the session may be valid.
    return (
      <main>
        <ErrorNote error={asked.error} retry={asked.reload} />
      </main>
    );
  }
  if (me === null && asked.data === undefined) return <main class="blank" aria-busy="true" />;
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

/** Asks who is logged in; whether anybody is. */
async function whoIsThere(): Promise<boolean> {
  try {
    loggedIn(await get<Me>("/panel/api/me"));
    return true;
  } catch (error) {
    // An account that is out of use, too: the login says why.
    if (error instanceof ApiError && (error.status === 401 || error.status === 403)) return false;
    throw error;
  }
}

function CurrentPage() {
  const [name = "", ...rest] = route.value.path.split("/").filter((part) => part !== "");
  const home = may("audit") ? "overview" : "home";
  const wanted = name === "" ? home : name;
  const entry = entries.find((one) => one.name === wanted && may(one.needs));
  const [page, setPage] = useState<{ readonly name: string; readonly Page: ComponentType<PageProps> }>();
  const [error, setError] = useState<ApiError>();
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (name === "") navigate(`/${home}`, { replace: true });
  }, [name]);
  useEffect(() => {
    setError(undefined);
    entry?.load().then(
      (Page) => {
        setPage({ name: wanted, Page });
      },
      (failure: unknown) => {
        setError(toApiError(failure));
      },
    );
  }, [entry?.name, tries]);
  if (error !== undefined) {
    return (
      <ErrorNote
        error={error}
        retry={() => {
          setTries((before) => before + 1);
        }}
      />
    );
  }
  if (entry === undefined) return <h1>{t("noSuchPage")}</h1>;
  if (page?.name !== wanted) return <div class="blank" aria-busy="true" />;
  return <page.Page key={wanted} rest={rest.map(decoded)} />;
}

/** A part of an address as text; one that is no valid coding as it is. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
