import { change, get, part } from "../lib/api.ts";
import { locale, setLocale, t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { session } from "../lib/session.ts";
import { setTheme, theme, themes } from "../lib/theme.ts";
import type { Session } from "../lib/types.ts";
import { PasswordForm } from "../login.tsx";
import { Card, ErrorNote, Page } from "../ui/basics.tsx";
import { Select } from "../ui/dialog.tsx";
import { SessionTable } from "../ui/session-table.tsx";
import { attempt, tell } from "../ui/toast.tsx";

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
          <PasswordForm />
        </Card>
      </div>
      <Card title={t("sessions")} dim={sessions.loading}>
        <ErrorNote error={sessions.error} retry={sessions.reload} />
        {sessions.data !== undefined && <SessionTable sessions={sessions.data.sessions} onEnd={end} />}
      </Card>
    </Page>
  );
}
