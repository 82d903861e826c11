import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { change, get, part } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { useModels } from "../lib/models.ts";
import { session } from "../lib/session.ts";
import type { Key, NewKey } from "../lib/types.ts";
import { Card, CopyButton, Empty, ErrorNote, Page, Snippet } from "../ui/basics.tsx";
import { Dialog, field, Field, Form, listField, Select, TypedConfirm } from "../ui/dialog.tsx";
import { KeyTable } from "../ui/key-table.tsx";
import { AmountField, MetricSelect, PeriodSelect } from "../ui/quota-fields.tsx";
import { tell } from "../ui/toast.tsx";
import { clientSnippets } from "./snippets.ts";

/** One's API keys: made, shown once with settings for clients, revoked. */
export function Keys() {
  const list = useKeyList("/auth/keys");
  return (
    <Page title={t("keys")} note={t("keysNote")} actions={<MakeKeyButton list={list} primary />}>
      <Card dim={list.loading}>
        <KeyList list={list} empty={<Empty>{t("noKeys")}</Empty>} mayRevoke />
      </Card>
    </Page>
  );
}

/** The keys behind a path, one's own or another user's, and which dialog is open. */
export function useKeyList(path: string) {
  const { data, error, loading, reload } = useLoad(path, (signal) =>
    get<{ readonly keys: readonly Key[] }>(path, {}, signal),
  );
  const [making, setMaking] = useState(false);
  return { path, keys: data?.keys, error, loading, reload, making, setMaking };
}

type KeyListState = ReturnType<typeof useKeyList>;

export function MakeKeyButton({ list, primary = false }: { readonly list: KeyListState; readonly primary?: boolean }) {
  return (
    <button
      type="button"
      class={primary ? "primary" : ""}
      onClick={() => {
        list.setMaking(true);
      }}
    >
      {t("makeKey")}
    </button>
  );
}

/** The table of keys, and the dialogs that make, show and revoke one. */
export function KeyList(props: {
  readonly list: KeyListState;
  readonly empty: ComponentChildren;
  readonly mayRevoke: boolean;
}) {
  const { path, keys, error, reload, making, setMaking } = props.list;
  const [made, setMade] = useState<NewKey>();
  const [revoking, setRevoking] = useState<Key>();
  return (
    <>
      <ErrorNote error={error} retry={reload} />
      {keys !== undefined && (
        <KeyTable keys={keys} empty={props.empty} onRevoke={props.mayRevoke ? setRevoking : undefined} />
      )}
      {making && (
        <NewKeyDialog
          path={path}
          onClose={() => {
            setMaking(false);
          }}
          onMade={(key) => {
            setMaking(false);
            setMade(key);
            reload();
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
      {revoking !== undefined && (
        <TypedConfirm
          title={t("revokeKey")}
          what={t("revokeKeyWhat")}
          name={revoking.name}
          action={t("revoke")}
          onClose={() => {
            setRevoking(undefined);
          }}
          onConfirm={async () => {
            await change("DELETE", `${path}/${part(revoking.id)}`);
            tell(t("keyRevoked", { name: revoking.name }));
            reload();
          }}
        />
      )}
    </>
  );
}

/** Asks for the terms of a new key; also for keys that an operator makes for others. */
export function NewKeyDialog(props: {
  readonly path: string;
  readonly onClose: () => void;
  readonly onMade: (key: NewKey) => void;
}) {
  const models = useModels();
  const groups = session.value?.groups ?? [];
  const own = props.path === "/auth/keys";
  const make = async (data: FormData): Promise<void> => {
    const allowed = listField(data, "models");
    const addresses = listField(data, "addresses");
    const max = field(data, "max");
    const days = field(data, "days");
    const group = field(data, "group");
    props.onMade(
      await change<NewKey>("POST", props.path, {
        name: field(data, "name"),
        ...(allowed.length === 0 ? {} : { models: allowed }),
        ...(addresses.length === 0 ? {} : { addresses }),
        ...(max === ""
          ? {}
          : { limits: [{ metric: field(data, "metric"), per: field(data, "per"), max: Number(max) }] }),
        ...(days === "" ? {} : { expires_at: new Date(Date.now() + Number(days) * 86_400_000).toISOString() }),
        ...(group === "" ? {} : { group }),
      }),
    );
  };
  return (
    <Dialog title={t("makeKey")} onClose={props.onClose}>
      <Form action={t("makeKey")} onSubmit={make} onCancel={props.onClose}>
        <Field label={t("name")} name="name" required maxLength={64} hint={t("keyNameHint")} autoFocus />
        <details>
          <summary>{t("keyLimits")}</summary>
          <Field label={t("expiresInDays")} name="days" type="number" min={1} max={36_500} hint={t("emptyNever")} />
          <Field label={t("onlyModels")} name="models" list={models} hint={t("onlyModelsHint")} />
          <Field label={t("onlyAddresses")} name="addresses" hint={t("onlyAddressesHint")} />
          <div class="grid three">
            <AmountField label={t("limitMax")} name="max" />
            <MetricSelect />
            <PeriodSelect />
          </div>
          {own && groups.length > 0 && (
            <Select
              label={t("group")}
              name="group"
              options={[["", "–"], ...groups.map((name): readonly [string, string] => [name, name])]}
            />
          )}
        </details>
      </Form>
    </Dialog>
  );
}

/** A key that has just been made: the only time that it is shown. */
export function MadeKey({ made, onClose }: { readonly made: NewKey; readonly onClose: () => void }) {
  const [model = "deepseek-flash"] = useModels();
  return (
    <Dialog title={t("keyMade", { name: made.name })} onClose={onClose}>
      <p>{t("keyOnce")}</p>
      <div class="secret">
        <code data-secret>{made.key}</code> <CopyButton text={made.key} />
      </div>
      {made.signing_secret !== undefined && (
        <div class="secret">
          <span class="note">{t("signingSecret")}</span> <code>{made.signing_secret}</code>{" "}
          <CopyButton text={made.signing_secret} />
        </div>
      )}
      {clientSnippets(made.key, model).map(({ label, text }) => (
        <details key={label}>
          <summary>{label}</summary>
          <Snippet label={label} text={text} />
        </details>
      ))}
      <div class="actions end">
        <button type="button" class="primary" onClick={onClose}>
          {t("keyKept")}
        </button>
      </div>
    </Dialog>
  );
}
