import { useState } from "preact/hooks";
import { change, get, getTagged, part, patch } from "../lib/api.ts";
import { t, type Word } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { hrefOf, navigate, route } from "../lib/router.ts";
import { may } from "../lib/session.ts";
import type { Session, User } from "../lib/types.ts";
import { Card, ErrorNote, Page, State, Time } from "../ui/basics.tsx";
import { Dialog, field, Field, Form, TypedConfirm } from "../ui/dialog.tsx";
import { SessionTable } from "../ui/session-table.tsx";
import { attempt, tell } from "../ui/toast.tsx";
import { KeyList, MakeKeyButton, useKeyList } from "./keys.tsx";
import { Timeline } from "./timeline.tsx";
import { UserQuota } from "./user-quota.tsx";
import { UserSettings } from "./user-settings.tsx";
import { UserSpend } from "./user-spend.tsx";
import { OneTimePassword } from "./users.tsx";

const tabs = [
  ["quota", "tabQuota"],
  ["settings", "tabSettings"],
  ["keys", "keys"],
  ["sessions", "sessions"],
  ["spend", "usage"],
  ["behaviour", "tabBehaviour"],
] as const satisfies readonly (readonly [string, Word])[];

/** Everything about one user, and everything that can be done. */
export function UserPage({ name }: { readonly name: string }) {
  const path = `/admin/users/${part(name)}`;
  const user = useLoad(path, () => getTagged<User>(path));
  const tab = route.value.query.get("tab") ?? "quota";
  const account = user.data?.value;
  return (
    <Page
      title={name}
      note={
        account !== undefined && (
          <>
            <State state={account.state} /> {account.quota_tier} · {account.roles.join(", ")} ·{" "}
            {t(account.second_factor ? "hasFactor" : "hasNoFactor")}
            {account.created_at !== null && (
              <>
                {" "}
                · {t("made")} <Time iso={account.created_at} />
              </>
            )}
          </>
        )
      }
      actions={
        <>
          <a class="button" href={hrefOf(`/requests?user=${part(name)}`)}>
            {t("requests")}
          </a>
          {may("operate") && account !== undefined && <UserActions user={account} reload={user.reload} />}
        </>
      }
    >
      <ErrorNote error={user.error} retry={user.reload} />
      {account?.state === "banned" && (
        <p class="banner">
          {t("bannedUntil")} <Time iso={account.banned_until} /> {account.ban_reason}
        </p>
      )}
      {user.error === undefined && (
        <>
          <div class="tabs" role="group" aria-label={t("parts")}>
            {tabs.map(([id, word]) => (
              <a
                key={id}
                class="button small"
                href={hrefOf(`/users/${part(name)}?tab=${id}`)}
                aria-current={id === tab ? "true" : undefined}
              >
                {t(word)}
              </a>
            ))}
          </div>
          {tab === "quota" && <UserQuota name={name} />}
          {tab === "settings" && user.data !== undefined && <UserSettings tagged={user.data} reload={user.reload} />}
          {tab === "keys" && <UserKeys name={name} />}
          {tab === "sessions" && <UserSessions name={name} />}
          {tab === "spend" && <UserSpend name={name} />}
          {tab === "behaviour" && <Timeline name={name} />}
        </>
      )}
    </Page>
  );
}

/** Disable, ban, reset the password, archive. What can be undone is done at once. */
function UserActions({ user, reload }: { readonly user: User; readonly reload: () => void }) {
  const { username: name } = user;
  const path = `/admin/users/${part(name)}`;
  const [asking, setAsking] = useState<"archive" | "factor" | "ban" | "reset">();
  const [password, setPassword] = useState<string>();
  const done = (): void => {
    setAsking(undefined);
  };
  const patchUser = async (fields: Partial<User>, before: Partial<User>, told: string): Promise<void> => {
    const etag = await patch(path, fields);
    reload();
    tell(told, async () => {
      await patch(path, before, etag);
      reload();
    });
  };
  const banned = user.banned_until !== null && Date.parse(user.banned_until) > Date.now();
  const lift = { banned_until: null, ban_reason: null };
  const present = { banned_until: user.banned_until, ban_reason: user.ban_reason };
  return (
    <>
      <button
        type="button"
        onClick={() =>
          void attempt(() =>
            patchUser(
              { is_active: !user.is_active },
              { is_active: user.is_active },
              user.is_active ? t("userDisabled", { name }) : t("userEnabled", { name }),
            ),
          )
        }
      >
        {user.is_active ? t("disable") : t("enable")}
      </button>
      {banned ? (
        <button type="button" onClick={() => void attempt(() => patchUser(lift, present, t("banLifted", { name })))}>
          {t("liftBan")}
        </button>
      ) : (
        <button
          type="button"
          onClick={() => {
            setAsking("ban");
          }}
        >
          {t("ban")}
        </button>
      )}
      <button
        type="button"
        onClick={() => {
          setAsking("reset");
        }}
      >
        {t("resetPassword")}
      </button>
      {user.second_factor && (
        <button
          type="button"
          onClick={() => {
            setAsking("factor");
          }}
        >
          {t("removeFactorOf")}
        </button>
      )}
      <button
        type="button"
        class="danger"
        onClick={() => {
          setAsking("archive");
        }}
      >
        {t("archive")}
      </button>
      {asking === "ban" && (
        <Dialog title={t("ban")} onClose={done}>
          <Form
            action={t("ban")}
            danger
            onCancel={done}
            onSubmit={async (data) => {
              const until = new Date(Date.now() + Number(field(data, "hours")) * 3_600_000).toISOString();
              const fields = { banned_until: until, ban_reason: field(data, "reason") };
              await patchUser(fields, lift, t("userBanned", { name }));
              done();
            }}
          >
            <Field label={t("hours")} name="hours" type="number" min={1} max={876_000} value="24" required autoFocus />
            <Field label={t("banReason")} name="reason" required maxLength={500} />
          </Form>
        </Dialog>
      )}
      {asking === "reset" && (
        <TypedConfirm
          title={t("resetPassword")}
          what={t("resetPasswordWhat")}
          name={name}
          action={t("resetPassword")}
          onClose={done}
          onConfirm={async () => {
            const reset = await change<{ readonly password: string }>("POST", `${path}/reset-password`);
            setPassword(reset.password);
            reload();
          }}
        />
      )}
      {asking === "factor" && (
        <Dialog title={t("removeFactorOf")} onClose={done}>
          <p>{t("removeFactorWhat", { name })}</p>
          <Form
            action={t("removeFactorOf")}
            danger
            onCancel={done}
            onSubmit={async (data) => {
              const reason = encodeURIComponent(field(data, "reason"));
              await change("DELETE", `${path}/second-factor?reason=${reason}`);
              tell(t("factorRemovedOf", { name }));
              done();
              reload();
            }}
          >
            <Field label={t("reason")} name="reason" required maxLength={500} autoFocus />
          </Form>
        </Dialog>
      )}
      {asking === "archive" && (
        <TypedConfirm
          title={t("archive")}
          what={t("archiveWhat")}
          name={name}
          action={t("archive")}
          onClose={done}
          onConfirm={async () => {
            await change("DELETE", path);
            tell(t("userArchived", { name }));
            navigate("/users");
          }}
        />
      )}
      {password !== undefined && (
        <OneTimePassword
          name={name}
          password={password}
          onClose={() => {
            setPassword(undefined);
          }}
        />
      )}
    </>
  );
}

function UserKeys({ name }: { readonly name: string }) {
  const list = useKeyList(`/admin/users/${part(name)}/keys`);
  return (
    <Card title={t("keys")} dim={list.loading} actions={may("operate") && <MakeKeyButton list={list} />}>
      <KeyList list={list} empty={t("noKeysOfUser")} mayRevoke={may("operate")} />
    </Card>
  );
}

function UserSessions({ name }: { readonly name: string }) {
  const path = `/admin/users/${part(name)}/sessions`;
  const sessions = useLoad(path, (signal) => get<{ readonly sessions: readonly Session[] }>(path, {}, signal));
  const end = (id: string): void =>
    void attempt(async () => {
      await change("DELETE", id === "" ? path : `${path}/${part(id)}`);
      tell(t("sessionEnded"));
      sessions.reload();
    });
  return (
    <Card
      title={t("sessions")}
      dim={sessions.loading}
      actions={
        may("operate") && (
          <>
            <button
              type="button"
              onClick={() =>
                void attempt(async () => {
                  await change("POST", `/admin/users/${part(name)}/unlock`);
                  tell(t("unlocked", { name }));
                })
              }
            >
              {t("unlock")}
            </button>
            <button
              type="button"
              onClick={() => {
                end("");
              }}
            >
              {t("endAll")}
            </button>
          </>
        )
      }
    >
      <ErrorNote error={sessions.error} retry={sessions.reload} />
      {sessions.data !== undefined && (
        <SessionTable
          sessions={sessions.data.sessions}
          onEnd={
            may("operate")
              ? ({ id }) => {
                  end(id);
                }
              : undefined
          }
        />
      )}
    </Card>
  );
}
