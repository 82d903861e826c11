import { useState } from "preact/hooks";
import { change, get, getTagged, part } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import type { PageProps } from "../lib/menu.ts";
import { hrefOf, navigate } from "../lib/router.ts";
import { may } from "../lib/session.ts";
import type { Group, NewKey, Quota, Usage } from "../lib/types.ts";
import { Card, Empty, ErrorNote, Page } from "../ui/basics.tsx";
import { Dialog, field, Field, Form, listField, TypedConfirm } from "../ui/dialog.tsx";
import { userNames } from "../ui/filters.tsx";
import { LimitBar, limitKey, limitText, metricAmount } from "../ui/limit-bar.tsx";
import { AmountField, MetricSelect, PeriodSelect } from "../ui/quota-fields.tsx";
import { Table } from "../ui/table.tsx";
import { attempt, tell } from "../ui/toast.tsx";
import { UsageTable } from "../ui/usage-table.tsx";
import { GroupSettings } from "./group-settings.tsx";
import { MadeKey, NewKeyDialog } from "./keys.tsx";

export function Groups({ rest }: PageProps) {
  const [name] = rest;
  return name === undefined ? <GroupList /> : <GroupPage key={name} name={name} />;
}

function GroupList() {
  const groups = useLoad("groups", (signal) => get<{ readonly groups: readonly Group[] }>("/admin/groups", {}, signal));
  const [making, setMaking] = useState(false);
  const close = (): void => {
    setMaking(false);
  };
  const make = async (data: FormData): Promise<void> => {
    const name = field(data, "name");
    const max = field(data, "max");
    await change("POST", "/admin/groups", {
      name,
      description: field(data, "description"),
      members: listField(data, "members"),
      ...(max === "" ? {} : { limits: [{ metric: field(data, "metric"), per: field(data, "per"), max: Number(max) }] }),
    });
    navigate(`/groups/${part(name)}`);
  };
  return (
    <Page
      title={t("groups")}
      note={t("groupsNote")}
      actions={
        may("operate") && (
          <button
            type="button"
            class="primary"
            onClick={() => {
              setMaking(true);
            }}
          >
            {t("newGroup")}
          </button>
        )
      }
    >
      <Card dim={groups.loading}>
        <ErrorNote error={groups.error} retry={groups.reload} />
        <Table
          label={t("groups")}
          rows={groups.data?.groups ?? []}
          keyOf={({ name }) => name}
          empty={groups.loading ? "…" : t("noGroups")}
          columns={[
            { head: t("name"), cell: ({ name }) => <a href={hrefOf(`/groups/${part(name)}`)}>{name}</a> },
            { head: t("description"), cell: ({ description }) => description },
            { head: t("members"), num: true, cell: ({ members }) => members.length },
            { head: t("owners"), cell: ({ owners }) => owners.join(", ") },
            {
              head: t("limitsShort"),
              cell: ({ limits }) =>
                limits
                  .map(({ metric, per, max, currency }) => limitText(metric, per, metricAmount(metric, max, currency)))
                  .join(" · "),
            },
            { head: t("setIn"), cell: ({ origin }) => (origin === "config" ? "config.toml" : t("here")) },
          ]}
        />
      </Card>
      {making && (
        <Dialog title={t("newGroup")} onClose={close}>
          <Form action={t("create")} onSubmit={make} onCancel={close}>
            <Field label={t("name")} name="name" required autoFocus pattern={userNames} hint={t("userNameRule")} />
            <Field label={t("description")} name="description" />
            <Field label={t("members")} name="members" hint={t("membersHint")} />
            <div class="grid three">
              <AmountField label={t("limitMax")} name="max" />
              <MetricSelect />
              <PeriodSelect />
            </div>
          </Form>
        </Dialog>
      )}
    </Page>
  );
}

function GroupPage({ name }: { readonly name: string }) {
  const path = `/admin/groups/${part(name)}`;
  const group = useLoad(path, (signal) => getTagged<Group>(path, signal));
  const quota = useLoad(`${path}/quota`, (signal) => get<Quota>(`${path}/quota`, {}, signal));
  const usage = useLoad(`${path}/usage`, (signal) => get<Usage>(`${path}/usage`, { by: "user" }, signal));
  const [asking, setAsking] = useState<"key" | "remove">();
  const [made, setMade] = useState<NewKey>();
  const data = group.data?.value;
  const editable = may("operate") && data?.origin === "admin";
  const members = `${path}/members`;
  const add = async (form: FormData): Promise<void> => {
    await change("PUT", `${members}/${part(field(form, "user"))}`);
    group.reload();
  };
  const remove = (user: string): void =>
    void attempt(async () => {
      await change("DELETE", `${members}/${part(user)}`);
      group.reload();
      tell(t("memberRemoved", { name: user }), async () => {
        await change("PUT", `${members}/${part(user)}`);
        group.reload();
      });
    });
  return (
    <Page
      title={name}
      note={data?.description}
      actions={
        may("operate") && (
          <>
            <button
              type="button"
              onClick={() => {
                setAsking("key");
              }}
            >
              {t("makeKey")}
            </button>
            {editable && (
              <button
                type="button"
                class="danger"
                onClick={() => {
                  setAsking("remove");
                }}
              >
                {t("removeGroup")}
              </button>
            )}
          </>
        )
      }
    >
      <ErrorNote error={group.error} retry={group.reload} />
      {data?.origin === "config" && <p class="banner">{t("groupOfConfig")}</p>}
      <div class="grid two">
        <Card title={t("limitsShort")} dim={quota.loading}>
          <ErrorNote error={quota.error} retry={quota.reload} />
          {quota.data?.limits.length === 0 && <Empty>{t("noLimitsOfUser")}</Empty>}
          {quota.data?.limits.map((limit) => (
            <LimitBar key={limitKey(limit)} limit={limit} />
          ))}
        </Card>
        <Card title={t("members")} dim={group.loading}>
          <Table
            label={t("members")}
            rows={data?.users ?? data?.members ?? []}
            keyOf={(user) => user}
            empty={group.loading ? "…" : t("noMembers")}
            columns={[
              { head: t("user"), cell: (user) => <a href={hrefOf(`/users/${part(user)}`)}>{user}</a> },
              { head: t("role"), cell: (user) => (data?.owners.includes(user) === true ? t("owner") : "") },
              ...(editable
                ? [
                    {
                      head: t("actions"),
                      num: true,
                      cell: (user: string) => (
                        <button
                          type="button"
                          class="small"
                          onClick={() => {
                            remove(user);
                          }}
                        >
                          {t("takeOut")}
                        </button>
                      ),
                    },
                  ]
                : []),
            ]}
          />
          {editable && (
            <Form key={data.members.length} action={t("addMember")} onSubmit={add}>
              <Field label={t("userName")} name="user" required pattern={userNames} title={t("userNameRule")} />
            </Form>
          )}
        </Card>
      </div>
      {editable && group.data !== undefined && <GroupSettings tagged={group.data} reload={group.reload} />}
      <Card title={t("last30Days")} dim={usage.loading}>
        <ErrorNote error={usage.error} retry={usage.reload} />
        {usage.data !== undefined && <UsageTable usage={usage.data} />}
      </Card>
      {asking === "key" && (
        <NewKeyDialog
          path={`${path}/keys`}
          onClose={() => {
            setAsking(undefined);
          }}
          onMade={(key) => {
            setAsking(undefined);
            setMade(key);
          }}
        />
      )}
      {made !== undefined && (
        <MadeKey
          made={made}
          onClose={() => {
            setMade(undefined);
          }}
        />
      )}
      {asking === "remove" && (
        <TypedConfirm
          title={t("removeGroup")}
          what={t("removeGroupWhat")}
          name={name}
          action={t("removeGroup")}
          onClose={() => {
            setAsking(undefined);
          }}
          onConfirm={async () => {
            await change("DELETE", path, undefined, { "if-match": group.data?.etag ?? "*" });
            navigate("/groups");
          }}
        />
      )}
    </Page>
  );
}
