import { useState } from "preact/hooks";
import { t } from "../lib/i18n.ts";
import { useModels } from "../lib/models.ts";
import { hrefOf } from "../lib/router.ts";
import { may, session } from "../lib/session.ts";
import { Card, Page, Snippet } from "../ui/basics.tsx";
import { Select } from "../ui/dialog.tsx";
import { clientSnippets } from "./snippets.ts";

/** Settings for programs, filled in with this address. */
export function Setup() {
  const models = useModels();
  const [chosen, setChosen] = useState<string>();
  const model = chosen ?? models[0] ?? "deepseek-flash";
  return (
    <Page
      title={t("setup")}
      note={t("setupNote")}
      actions={
        <a class="button primary" href={hrefOf("/keys")}>
          {t("makeKey")}
        </a>
      }
    >
      {session.value?.simulated === true && may("audit") && <FirstRun />}
      <Card>
        <Select
          label={t("model")}
          name="model"
          value={model}
          options={(models.length === 0 ? [model] : models).map((id) => [id, id] as const)}
          onChange={setChosen}
        />
      </Card>
      <div class="grid two">
        {clientSnippets("dsp_…", model).map(({ label, text }) => (
          <Card key={label}>
            <Snippet label={label} text={text} />
          </Card>
        ))}
      </div>
    </Page>
  );
}

/** No provider has a key: what that means, and what to do. */
function FirstRun() {
  return (
    <Card title={t("simulatedTitle")}>
      <p>{t("firstRunWhat")}</p>
      <ol class="steps">
        <li>
          {t("firstRunKey")}
          <Snippet label="shell" text={"DEEPSEEK_API_KEY=sk-… npm start"} />
        </li>
        <li>
          {t("firstRunOther")}
          <Snippet
            label="config.toml"
            text={`[[providers]]\nname = "zhipu"\nkind = "zhipu"\napi_key_env = "ZHIPU_API_KEY"\nmodels = ["glm-*"]`}
          />
        </li>
        <li>
          {t("firstRunCheck")} <a href={hrefOf("/providers")}>{t("providers")}</a>
        </li>
        <li>
          {t("firstRunUser")} <a href={hrefOf("/users?new=1")}>{t("newUser")}</a>
        </li>
      </ol>
    </Card>
  );
}
