import { useState } from "preact/hooks";
import { part, type Tagged } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { may } from "../lib/session.ts";
import { useTiers } from "../lib/tiers.ts";
import type { User } from "../lib/types.ts";
import { Card } from "../ui/basics.tsx";
import { type Fields, useSave } from "../ui/conflict.tsx";
import { field, Field, Form, listField, Select } from "../ui/dialog.tsx";
import { FactList } from "../ui/fact-list.tsx";

/** Changes a user. */
export function UserSettings({ tagged, reload }: { readonly tagged: Tagged<User>; readonly reload: () => void }) {
  const { value: user } = tagged;
  const path = `/admin/users/${part(user.username)}`;
  const { save, dialog, formKey, locked } = useSave<User>({ path, tagged, conflictText: t("conflictWhat"), reload });
  return (
    <div class="grid two">
      <Card title={t("tabSettings")}>
        <UserForm key={formKey} user={user} save={save} locked={locked} />
      </Card>
      <Card title={t("allFields")}>
        <FactList facts={{ ...user }} />
      </Card>
      {dialog}
    </div>
  );
}

/** Fields that were not changed here show what `user` has now; the others keep what was typed. */
function UserForm(props: {
  readonly user: User;
  readonly save: (wanted: Fields<User>) => Promise<void>;
  readonly locked: boolean;
}) {
  const { user, save, locked } = props;
  const { tiers } = useTiers();
  const [chosenTier, setTier] = useState<string>();
  const [chosenRoles, setRoles] = useState<readonly string[]>();
  const tier = chosenTier ?? user.quota_tier;
  const roles = chosenRoles ?? user.roles;

  const wanted = (data: FormData): Fields<User> => {
    const models = listField(data, "models");
    const expires = field(data, "expires");
    const parallel = field(data, "parallel");
    const step = field(data, "default_group");
    return {
      quota_tier: tier,
      roles,
      models: models.length === 0 ? null : models,
      max_parallel: parallel === "" ? null : Number(parallel),
      default_group: step === "" ? null : step,
      // A date that was left alone keeps its time of day.
      expires_at:
        expires === (user.expires_at ?? "").slice(0, 10)
          ? user.expires_at
          : expires === ""
            ? null
            : `${expires}T00:00:00Z`,
    };
  };

  const options = tiers.includes(user.quota_tier) ? tiers : [user.quota_tier, ...tiers];
  return (
    <Form
      action={t("save")}
      locked={locked}
      onSubmit={(data) => (may("operate") ? save(wanted(data)) : Promise.resolve())}
    >
      <Select
        label={t("tier")}
        name="tier"
        value={tier}
        options={options.map((name) => [name, name] as const)}
        onChange={setTier}
      />
      <fieldset>
        <legend>{t("role")}</legend>
        {(["user", "auditor", "admin"] as const).map((role) => (
          <label key={role} class="check">
            <input
              type="checkbox"
              name={`role_${role}`}
              checked={roles.includes(role)}
              onChange={(event) => {
                const { checked } = event.currentTarget;
                setRoles(checked ? [...roles, role] : roles.filter((one) => one !== role));
              }}
            />
            {t(`role_${role}`)}
          </label>
        ))}
      </fieldset>
      <Field label={t("onlyModels")} name="models" value={user.models?.join(", ") ?? ""} hint={t("onlyModelsHint")} />
      <Field
        label={t("maxParallel")}
        name="parallel"
        type="number"
        min={1}
        max={10_000}
        value={String(user.max_parallel ?? "")}
        hint={t("emptyDefault")}
      />
      <Field label={t("defaultGroup")} name="default_group" value={user.default_group ?? ""} hint={t("emptyDefault")} />
      <Field
        label={t("expiresOn")}
        name="expires"
        type="date"
        value={(user.expires_at ?? "").slice(0, 10)}
        hint={t("emptyNever")}
      />
    </Form>
  );
}
