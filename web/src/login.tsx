import { useEffect, useState } from "preact/hooks";
import { ApiError, change, get, inputError } from "./lib/api.ts";
import { locale, setLocale, t, tOr } from "./lib/i18n.ts";
import { useLoad } from "./lib/load.ts";
import { navigate, route } from "./lib/router.ts";
import { loggedIn, type Me } from "./lib/session.ts";
import { ErrorNote } from "./ui/basics.tsx";
import { Dialog, Field, Form } from "./ui/dialog.tsx";

/** How one can log in, as the config has it. */
interface LoginWays {
  readonly password_login: "all" | "admins" | "off";
  readonly registration: "off" | "invitation";
  readonly issuers: readonly { readonly name: string; readonly title: string }[];
}

/** What GET /panel/api/oidc says. Where it fails there are passwords. */
export function useLoginWays() {
  return useLoad("ways", (signal) => get<LoginWays>("/panel/api/oidc", {}, signal)).data;
}

/** What went wrong at an identity provider, or on the way back: the address says it once. */
export function LoginError() {
  const [given] = useState(route.value.query.get("login_error"));
  // Anybody can write an address: only words of ours are shown.
  const code = given === null || tOr(`error_${given}`, "") !== "" ? given : "panel_error";
  useEffect(() => {
    if (code !== null) navigate(route.value.path, { replace: true });
  }, []);
  return <ErrorNote error={code === null ? undefined : new ApiError(0, code, "", "", null)} />;
}

/** The login; on a page of its own or, with the name known, on top of what the session ended under. */
export function LoginForm({ user }: { readonly user?: string }) {
  const [needsCode, setNeedsCode] = useState(false);
  const [registers, setRegisters] = useState(false);
  const ways = useLoginWays();
  const { path, query } = route.value;
  // Links, not forms: the page's policy lets no form lead elsewhere.
  const then = encodeURIComponent(`/panel${path}${query.size === 0 ? "" : `?${query.toString()}`}`);
  const login = async (data: FormData): Promise<void> => {
    const text = (name: string): string => typed(data, name);
    const otp = text("otp").trim();
    try {
      await change("POST", "/panel/api/login", {
        username: text("username").trim(),
        password: text("password"),
        ...(otp === "" ? {} : { otp }),
      });
    } catch (error) {
      if (error instanceof ApiError && error.code.startsWith("otp")) setNeedsCode(true);
      // The first step is no mistake: the form goes on with a field for the code.
      if (error instanceof ApiError && error.code === "otp_required" && !needsCode) return;
      throw error;
    }
    loggedIn(await get<Me>("/panel/api/me"));
  };
  const canRegister = user === undefined && ways?.registration === "invitation";
  if (canRegister && registers) {
    return (
      <div class="login-box">
        <LoginHead title={t("register")} />
        <RegisterForm
          onCancel={() => {
            setRegisters(false);
          }}
          onDone={login}
        />
      </div>
    );
  }
  return (
    <div class="login-box">
      {user === undefined && <LoginHead title={t("login")} />}
      <LoginError />
      {ways?.issuers.map(({ name, title }) => (
        <p key={name}>
          <a class="button wide" href={`/panel/api/oidc/${name}/start?then=${then}`} target="_self">
            {t("loginWith", { title })}
          </a>
        </p>
      ))}
      {ways?.password_login === "admins" && <p class="note">{t("passwordsForAdmins")}</p>}
      {ways?.password_login !== "off" && (
        <Form action={t("login")} onSubmit={login}>
          <Field
            label={t("userName")}
            name="username"
            value={user ?? ""}
            autoComplete="username"
            required
            autoFocus={user === undefined}
          />
          <Field
            label={t("password")}
            name="password"
            type="password"
            autoComplete="current-password"
            required
            autoFocus={user !== undefined}
          />
          {needsCode && (
            <Field
              label={t("oneTimeCode")}
              name="otp"
              hint={t("error_otp_required")}
              autoComplete="one-time-code"
              autoFocus
            />
          )}
        </Form>
      )}
      {canRegister && (
        <p>
          <button
            type="button"
            class="wide"
            onClick={() => {
              setRegisters(true);
            }}
          >
            {t("registerWithCode")}
          </button>
        </p>
      )}
      {user === undefined && (ways?.issuers.length ?? 0) === 0 && <p class="note">{t("firstLoginNote")}</p>}
      {!window.isSecureContext && <p class="note warn-text">{t("plainHttpNote")}</p>}
    </div>
  );
}

/** Who can't read the page yet finds the other language beside its title. */
function LoginHead({ title }: { readonly title: string }) {
  return (
    <div class="card-head">
      <h1>{title}</h1>
      <button
        type="button"
        class="quiet"
        lang={locale.value === "zh" ? "en" : "zh-CN"}
        onClick={() => void setLocale(locale.value === "zh" ? "en" : "zh")}
      >
        {t("otherLanguage")}
      </button>
    </div>
  );
}

/** Makes an account of one's own, with an invitation, and logs in to it. */
function RegisterForm(props: { readonly onCancel: () => void; readonly onDone: (data: FormData) => Promise<void> }) {
  const register = async (data: FormData): Promise<void> => {
    if (typed(data, "password") !== typed(data, "again")) throw inputError(t("passwordsDiffer"), "again");
    await change("POST", "/auth/register", {
      code: typed(data, "code").trim(),
      username: typed(data, "username").trim(),
      password: typed(data, "password"),
    });
    await props.onDone(data);
  };
  return (
    <Form action={t("register")} onSubmit={register} onCancel={props.onCancel}>
      <Field label={t("invitationCode")} name="code" required autoComplete="off" autoFocus />
      <Field label={t("userName")} name="username" required autoComplete="username" hint={t("nameRule")} />
      <Field
        label={t("password")}
        name="password"
        type="password"
        required
        autoComplete="new-password"
        hint={t("passwordRule")}
      />
      <Field label={t("newPasswordAgain")} name="again" type="password" required autoComplete="new-password" />
    </Form>
  );
}

/** Asks for a password of one's own; nothing else is allowed before. */
export function NewPassword() {
  return (
    <Dialog title={t("choosePassword")}>
      <p class="note">{t("choosePasswordNote")}</p>
      <PasswordForm
        onDone={() => {
          // What asked for more before this was known has been refused.
          window.location.reload();
        }}
      />
    </Dialog>
  );
}

/** Changes the password. All other sessions end with it; this browser gets a new one. */
export function PasswordForm({ onDone }: { readonly onDone: () => void }) {
  const save = async (data: FormData): Promise<void> => {
    const text = (name: string): string => typed(data, name);
    if (text("new") !== text("again")) throw inputError(t("passwordsDiffer"), "again");
    await change("POST", "/panel/api/password", { current_password: text("current"), new_password: text("new") });
    onDone();
  };
  return (
    <Form action={t("changePassword")} onSubmit={save}>
      <Field label={t("currentPassword")} name="current" type="password" autoComplete="current-password" required />
      <Field
        label={t("newPassword")}
        name="new"
        type="password"
        autoComplete="new-password"
        required
        hint={t("passwordRule")}
      />
      <Field label={t("newPasswordAgain")} name="again" type="password" autoComplete="new-password" required />
    </Form>
  );
}

/** A text of a form as it was typed: a password may begin with a space. */
function typed(data: FormData, name: string): string {
  const value = data.get(name);
  return typeof value === "string" ? value : "";
}
