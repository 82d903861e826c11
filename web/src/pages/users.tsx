import { useState } from "preact/hooks";
import { change, get } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import type { PageProps } from "../lib/menu.ts";
import { usePages } from "../lib/pages.ts";
import { hrefOf, navigate, route, setQuery } from "../lib/router.ts";
import { may } from "../lib/session.ts";
import { useTiers } from "../lib/tiers.ts";
import type { User } from "../lib/types.ts";
import { Card, CopyButton, ErrorNote, Page, State, Time } from "../ui/basics.tsx";
import { Dialog, field, Field, Form, Select } from "../ui/dialog.tsx";
import { FilterField, userNames } from "../ui/filters.tsx";
import { More, Table } from "../ui/table.tsx";
import { UserPage } from "./user.tsx";

const states = ["active", "disabled", "banned", "expired", "not_yet_active"] as const;

export function Users({ rest }: PageProps) {
  const [name] = rest;
  return name === undefined ? <UserList /> : <UserPage key={name} name={name} />;
}

interface NewUser extends User {
  readonly password?: string;
}

function UserList() {
  const { query } = route.value;
  const asked = {
    search: query.get("search") ?? "",
    tier: query.get("tier") ?? "",
    role: query.get("role") ?? "",
    state: query.get("state") ?? "",
  };
  const page = usePages(JSON.stringify(asked), async (cursor, signal) => {
    const list = await get<{ readonly users: readonly User[]; readonly next_cursor: string | null }>(
      "/admin/users",
      { ...asked, cursor, limit: 100 },
      signal,
    );
    return { items: list.users, next: list.next_cursor };
  });
  const active = useLoad("active", (signal) =>
    get<{ readonly users: readonly { readonly user: string; readonly last_seen_at: string }[] }>(
      "/admin/active-users",
      {},
      signal,
    ),
  );
  const { tiers } = useTiers();
  const [made, setMade] = useState<NewUser>();
  const any = (label: string): readonly [string, string] => ["", label];
  const seen = new Map(active.data?.users.map(({ user, last_seen_at: at }) => [user, at]));
  return (
    <Page
      title={t("users")}
      actions={
        may("operate") && (
          <button
            type="button"
            class="primary"
            onClick={() => {
              setQuery({ new: "1" });
            }}
          >
            {t("newUser")}
          </button>
        )
      }
    >
      <div class="filters">
        <FilterField label={t("search")} name="search" search live />
        <Select
          label={t("tier")}
          name="tier"
          value={asked.tier}
          options={[any(t("all")), ...tiers.map((tier) => [tier, tier] as const)]}
          onChange={(tier) => {
            setQuery({ tier });
          }}
        />
        <Select
          label={t("role")}
          name="role"
          value={asked.role}
          options={[
            any(t("all")),
            ["user", t("role_user")],
            ["auditor", t("role_auditor")],
            ["admin", t("role_admin")],
          ]}
          onChange={(role) => {
            setQuery({ role });
          }}
        />
        <Select
          label={t("state")}
          name="state"
          value={asked.state}
          options={[any(t("all")), ...states.map((state) => [state, t(`state_${state}`)] as const)]}
          onChange={(state) => {
            setQuery({ state });
          }}
        />
      </div>
      <Card dim={page.loading}>
        <ErrorNote error={page.error} retry={page.reload} />
        <Table
          label={t("users")}
          rows={page.items}
          keyOf={({ username }) => username}
          empty={page.loading ? "…" : t("nothingFits")}
          columns={[
            {
              head: t("name"),
              cell: ({ username }) => <a href={hrefOf(`/users/${encodeURIComponent(username)}`)}>{username}</a>,
            },
            { head: t("state"), cell: ({ state }) => <State state={state} /> },
            { head: t("tier"), cell: ({ quota_tier: tier }) => tier },
            {
              head: t("role"),
              cell: ({ roles, service }) => [...roles, ...(service ? [t("serviceAccount")] : [])].join(", "),
            },
            {
              head: t("activeNow"),
              cell: ({ username }) => (seen.has(username) ? <Time iso={seen.get(username)} /> : ""),
            },
            { head: t("made"), cell: ({ created_at: at }) => <Time iso={at} /> },
          ]}
        />
        <More busy={page.loading} more={page.more} onMore={page.loadMore} />
      </Card>
      {query.get("new") === "1" && (
        <NewUserDialog
          tiers={tiers}
          onMade={(user) => {
            setQuery({ new: undefined });
            setMade(user);
            page.reload();
          }}
        />
      )}
      {made !== undefined && (
        <OneTimePassword
          name={made.username}
          password={made.password ?? ""}
          onClose={() => {
            navigate(`/users/${encodeURIComponent(made.username)}`);
          }}
        />
      )}
    </Page>
  );
}

function NewUserDialog({
  tiers,
  onMade,
}: {
  readonly tiers: readonly string[];
  readonly onMade: (user: NewUser) => void;
}) {
  const [tier, setTier] = useState<string>();
  const [role, setRole] = useState("user");
  const close = (): void => {
    setQuery({ new: undefined });
  };
  const make = async (data: FormData): Promise<void> => {
    const body = { username: field(data, "username"), quota_tier: field(data, "tier"), roles: [field(data, "role")] };
    onMade(await change<NewUser>("POST", "/admin/users", body));
  };
  return (
    <Dialog title={t("newUser")} onClose={close}>
      <Form action={t("create")} onSubmit={make} onCancel={close}>
        <Field
          label={t("userName")}
          name="username"
          required
          autoFocus
          autoComplete="off"
          pattern={userNames}
          hint={t("userNameRule")}
        />
        <Select
          label={t("tier")}
          name="tier"
          value={tier ?? tiers[0] ?? ""}
          options={tiers.map((name) => [name, name] as const)}
          onChange={setTier}
        />
        <Select
          label={t("role")}
          name="role"
          value={role}
          options={[
            ["user", t("role_user")],
            ["auditor", t("role_auditor")],
            ["admin", t("role_admin")],
          ]}
          onChange={setRole}
        />
        <p class="note">{t("newUserNote")}</p>
      </Form>
    </Dialog>
  );
}

/** The password of a new user, or after a reset: the only time that it is shown. */
export function OneTimePassword(props: {
  readonly name: string;
  readonly password: string;
  readonly onClose: () => void;
}) {
  const { name, password, onClose } = props;
  const message = t("oneTimeMessage", { url: `${window.location.origin}/panel/`, name, password });
  return (
    <Dialog title={t("oneTimePassword", { name })} onClose={onClose}>
      <p>{t("oneTimeNote")}</p>
      <div class="secret">
        <code data-secret>{password}</code> <CopyButton text={password} />
      </div>
      <div class="actions end">
        <CopyButton text={message} label={t("copyMessage")} />
        <button type="button" class="primary" onClick={onClose}>
          {t("close")}
        </button>
      </div>
    </Dialog>
  );
}
