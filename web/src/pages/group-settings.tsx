import { useState } from "preact/hooks";
import { ApiError, change, getTagged, part, type Tagged } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import type { Group } from "../lib/types.ts";
import { Card } from "../ui/basics.tsx";
import { type Conflict, ConflictDialog } from "../ui/conflict.tsx";
import { field, Field, Form, listField } from "../ui/dialog.tsx";
import { tell } from "../ui/toast.tsx";

type Fields = Conflict<Group>["mine"];

/**
 * Changes a group: only what was changed is sent, for the version that was shown. If somebody else was faster, both
 * values are shown, and one chooses.
 */
export function GroupSettings({ tagged, reload }: { readonly tagged: Tagged<Group>; readonly reload: () => void }) {
  const { value: group } = tagged;
  const path = `/admin/groups/${part(group.name)}`;
  const [conflict, setConflict] = useState<Conflict<Group>>();

  const save = async (fields: Fields, base: Tagged<Group>): Promise<void> => {
    if (Object.keys(fields).length === 0) return;
    try {
      await change("PATCH", path, fields, { "if-match": base.etag });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 412) throw error;
      setConflict({ mine: fields, theirs: await getTagged<Group>(path) });
      return;
    }
    setConflict(undefined);
    const names = Object.keys(fields) as (keyof Group)[];
    const before = Object.fromEntries(names.map((name) => [name, base.value[name]]));
    tell(t("saved"), async () => {
      await change("PATCH", path, before);
      reload();
    });
    reload();
  };

  const changed = (data: FormData): Fields => {
    const models = listField(data, "models");
    const parallel = field(data, "parallel");
    const wanted: Fields = {
      description: field(data, "description"),
      members: listField(data, "members"),
      owners: listField(data, "owners"),
      models: models.length === 0 ? null : models,
      max_parallel: parallel === "" ? null : Number(parallel),
    };
    const names = Object.keys(wanted) as (keyof Group)[];
    const differing = names.filter((name) => JSON.stringify(wanted[name]) !== JSON.stringify(group[name]));
    return Object.fromEntries(differing.map((name) => [name, wanted[name]]));
  };

  return (
    <Card title={t("tabSettings")}>
      <Form action={t("save")} onSubmit={(data) => save(changed(data), tagged)}>
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
      {conflict !== undefined && (
        <ConflictDialog
          conflict={conflict}
          what={t("groupConflictWhat")}
          onMine={() => save(conflict.mine, conflict.theirs)}
          onTheirs={() => {
            setConflict(undefined);
            reload();
          }}
        />
      )}
    </Card>
  );
}
