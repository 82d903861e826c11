import { part, type Tagged } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import type { Group } from "../lib/types.ts";
import { Card } from "../ui/basics.tsx";
import { type Fields, useSave } from "../ui/conflict.tsx";
import { field, Field, Form, listField } from "../ui/dialog.tsx";

/** Changes a group. */
export function GroupSettings({ tagged, reload }: { readonly tagged: Tagged<Group>; readonly reload: () => void }) {
  const { value: group } = tagged;
  const path = `/admin/groups/${part(group.name)}`;
  const conflictText = t("groupConflictWhat");
  const { save, dialog, formKey, locked } = useSave<Group>({ path, tagged, conflictText, reload });

  const wanted = (data: FormData): Fields<Group> => {
    const models = listField(data, "models");
    const parallel = field(data, "parallel");
    return {
      description: field(data, "description"),
      members: listField(data, "members"),
      owners: listField(data, "owners"),
      models: models.length === 0 ? null : models,
      max_parallel: parallel === "" ? null : Number(parallel),
    };
  };

  return (
    <Card title={t("tabSettings")}>
      <Form key={formKey} locked={locked} action={t("save")} onSubmit={(data) => save(wanted(data))}>
        <Field label={t("description")} name="description" value={group.description} />
        <Field label={t("members")} name="members" value={group.members.join(", ")} hint={t("membersHint")} />
        <Field label={t("owners")} name="owners" value={group.owners.join(", ")} hint={t("ownersHint")} />
        <Field
          label={t("onlyModels")}
          name="models"
          value={group.models?.join(", ") ?? ""}
          hint={t("onlyModelsHint")}
        />
        <Field
          label={t("maxParallel")}
          name="parallel"
          type="number"
          min={1}
          max={10_000}
          value={String(group.max_parallel ?? "")}
          hint={t("emptyNoLimit")}
        />
      </Form>
      {dialog}
    </Card>
  );
}
