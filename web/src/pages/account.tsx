import { useState } from "preact/hooks";
import { change, get, part } from "../lib/api.ts";
import { locale, setLocale, t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { session } from "../lib/session.ts";
import { setTheme, theme, themes } from "../lib/theme.ts";
import type { Session } from "../lib/types.ts";
import { LoginError, PasswordForm, useLoginWays } from "../login.tsx";
import { Card, ErrorNote, Page, Time } from "../ui/basics.tsx";
import { Select, TypedConfirm } from "../ui/dialog.tsx";
import { SecondFactor } from "../second-factor.tsx";
import { SessionTable } from "../ui/session-table.tsx";
import { Table } from "../ui/table.tsx";
import { attempt, tell } from "../ui/toast.tsx";

/** Logins of identity providers that are linked to the account. */
interface LinkedLogin {
  readonly id: string;
  readonly issuer: string;
  readonly name: string | null;
  readonly sub: string;
  readonly linked_at: string;
}

function LinkedLogins() {
  const ways = useLoginWays();
  const linked = useLoad("linked", (signal) =>
    get<{ readonly logins: readonly LinkedLogin[] }>("/panel/api/oidc/logins", {}, signal),
  );
  const [last, setLast] = useState<LinkedLogin>();
  if (ways === undefined || (ways.issuers.length === 0 && (linked.data?.logins.length ?? 0) === 0)) return null;
  const link = (name: string): void =>
    void attempt(async () => {
      const { location } = await change<{ readonly location: string }>("POST", `/panel/api/oidc/${part(name)}/link`);
      window.location.assign(location);
    });
  const unlink = async ({ id }: LinkedLogin): Promise<void> => {
    await change("DELETE", `/panel/api/oidc/logins/${part(id)}`);
    tell(t("unlinked"));
    linked.reload();
  };
  const titleOf = ({ name, issuer }: LinkedLogin): string =>
    ways.issuers.find((one) => one.name === name)?.title ?? issuer;
  return (
    <Card title={t("linkedLogins")} dim={linked.loading}>
      <LoginError />
      <ErrorNote error={linked.error} retry={linked.reload} />
      <Table
        label={t("linkedLogins")}
        rows={linked.data?.logins ?? []}
        keyOf={({ id }) => id}
        empty={t("noLinkedLogins")}
        columns={[
          { head: t("identityProvider"), cell: titleOf },
          { head: t("identity"), cell: ({ sub }) => <span class="mono">{sub}</span> },
          { head: t("linkedAt"), cell: ({ linked_at: at }) => <Time iso={at} /> },
          {
            head: t("actions"),
            num: true,
            cell: (login) => (
              <button
                type="button"
                class="small"
                onClick={() => {
                  if (linked.data?.logins.length === 1) setLast(login);
                  else void attempt(() => unlink(login));
                }}
              >
                {t("unlink")}
              </button>
            ),
          },
        ]}
      />
      <div class="actions">
        {ways.issuers.map(({ name, title }) => (
          <button
            key={name}
            type="button"
            onClick={() => {
              link(name);
            }}
          >
            {t("linkWith", { title })}
          </button>
        ))}
      </div>
      {last !== undefined && (
        <TypedConfirm
          title={t("unlink")}
          what={t("unlinkLast")}
          name={session.value?.user ?? ""}
          action={t("unlink")}
          onConfirm={() => unlink(last)}
          onClose={() => {
            setLast(undefined);
          }}
        />
      )}
    </Card>
  );
}

/** Password, sessions, language and theme. */
export function Account() {
  const sessions = useLoad("sessions", (signal) =>
    get<{ readonly sessions: readonly Session[] }>("/auth/sessions", {}, signal),
  );
  const me = session.value;
  const end = (one: Session): void =>
    void attempt(async () => {
      await change("DELETE", `/auth/sessions/${part(one.id)}`);
      tell(t("sessionEnded"));
      sessions.reload();
    });
  return (
    <Page title={t("account")} note={`${me?.user ?? ""} · ${me?.roles.join(", ") ?? ""} · ${me?.tier ?? ""}`}>
      <div class="grid two">
        <Card title={t("look")}>
          <Select
            label={t("language")}
            name="language"
            value={locale.value}
            options={[
              ["en", "English"],
              ["zh", "中文"],
            ]}
            onChange={(value) => void setLocale(value === "zh" ? "zh" : "en")}
          />
          <Select
            label={t("theme")}
            name="theme"
            value={theme.value}
            options={themes.map((name) => [name, t(`theme_${name}`)] as const)}
            onChange={(value) => {
              setTheme(themes.find((name) => name === value) ?? "auto");
            }}
          />
          <p class="note">{t("zoneNote", { zone: me?.timezone ?? "" })}</p>
        </Card>
        <Card title={t("changePassword")}>
          <p class="note">{t("passwordEndsSessions")}</p>
          <PasswordForm
            onDone={() => {
              tell(t("passwordChanged"));
              sessions.reload();
            }}
          />
        </Card>
      </div>
      <SecondFactor />
      <LinkedLogins />
      <Card title={t("sessions")} dim={sessions.loading}>
        <ErrorNote error={sessions.error} retry={sessions.reload} />
        {sessions.data !== undefined && <SessionTable sessions={sessions.data.sessions} onEnd={end} />}
      </Card>
    </Page>
  );
}
