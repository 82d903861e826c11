import { useEffect, useState } from "preact/hooks";
import { change, get } from "./lib/api.ts";
import { t } from "./lib/i18n.ts";
import { useLoad } from "./lib/load.ts";
import { Card, CopyButton, ErrorNote } from "./ui/basics.tsx";
import { Dialog, Field, field, Form } from "./ui/dialog.tsx";
import { tell } from "./ui/toast.tsx";

const path = "/panel/api/second-factor";

/** The second factor on the Account page. */
export function SecondFactor() {
  const [asked, setAsked] = useState(false);
  const state = useLoad("factor", (signal) =>
    get<{ readonly enabled: boolean; readonly recovery_codes_left: number }>(path, {}, signal),
  );
  const remove = async (data: FormData): Promise<void> => {
    const password = data.get("password");
    await change("POST", `${path}/remove`, { current_password: password, otp: field(data, "otp") });
    tell(t("factorRemoved"));
    state.reload();
  };
  const close = (): void => {
    setAsked(false);
    state.reload();
  };
  return (
    <Card title={t("secondFactor")} dim={state.loading}>
      <ErrorNote error={state.error} retry={state.reload} />
      {state.data?.enabled === false && (
        <>
          <p class="note">{t("factorNote")}</p>
          <button
            type="button"
            onClick={() => {
              setAsked(true);
            }}
          >
            {t("setUpFactor")}
          </button>
        </>
      )}
      {state.data?.enabled === true && (
        <>
          <p class="note">{t("factorOn", { n: state.data.recovery_codes_left })}</p>
          <Form action={t("removeFactor")} danger onSubmit={remove}>
            <Field label={t("currentPassword")} name="password" type="password" autoComplete="off" required />
            <Field label={t("oneTimeCode")} name="otp" autoComplete="one-time-code" required />
          </Form>
        </>
      )}
      {asked && (
        <Dialog title={t("setUpFactor")} onClose={close}>
          <FactorSetup onDone={close} />
        </Dialog>
      )}
    </Card>
  );
}

/** Asks for a second factor of those who can do nothing without one. */
export function FactorNeeded() {
  return (
    <Dialog title={t("setUpFactor")}>
      <p class="note">{t("error_second_factor_required")}</p>
      <FactorSetup
        onDone={() => {
          window.location.reload();
        }}
      />
    </Dialog>
  );
}

/** The secret for an authenticator, a code that proves that it has it, and then the recovery codes, once. */
function FactorSetup({ onDone }: { readonly onDone: () => void }) {
  const [codes, setCodes] = useState<readonly string[]>();
  const made = useLoad("secret", () =>
    change<{ readonly secret: string; readonly uri: string }>("POST", `${path}/secret`),
  );
  if (codes !== undefined) {
    return (
      <>
        <p>{t("recoveryNote")}</p>
        <ul class="mono">
          {codes.map((code) => (
            <li key={code}>{code}</li>
          ))}
        </ul>
        <div class="actions end">
          <CopyButton text={codes.join("\n")} />
          <button type="button" class="primary" onClick={onDone}>
            {t("recoveryKept")}
          </button>
        </div>
      </>
    );
  }
  if (made.data === undefined) return <ErrorNote error={made.error} retry={made.reload} />;
  const { secret, uri } = made.data;
  const save = async (data: FormData): Promise<void> => {
    const saved = await change<{ readonly recovery_codes: readonly string[] }>("POST", path, {
      secret,
      otp: field(data, "otp"),
    });
    setCodes(saved.recovery_codes);
  };
  return (
    <>
      <p>{t("scanNote")}</p>
      <QrCode text={uri} />
      <p class="mono">
        {secret} <CopyButton text={secret} />
      </p>
      <Form action={t("confirmFactor")} onSubmit={save}>
        <Field label={t("oneTimeCode")} name="otp" autoComplete="one-time-code" required />
      </Form>
    </>
  );
}

/** A QR code as one path; what makes it is loaded when it is needed. */
function QrCode({ text }: { readonly text: string }) {
  const [code, setCode] = useState<{ readonly size: number; readonly data: readonly (readonly boolean[])[] }>();
  useEffect(() => {
    void import("uqr").then(({ encode }) => {
      setCode(encode(text));
    });
  }, [text]);
  if (code === undefined) return <div class="qr" />;
  const dots = code.data.flatMap((row, y) => row.flatMap((dark, x) => (dark ? [`M${x} ${y}h1v1h-1z`] : [])));
  return (
    <svg class="qr" viewBox={`0 0 ${code.size} ${code.size}`} role="img" aria-label={t("qrCode")}>
      <rect width={code.size} height={code.size} fill="#fff" />
      <path d={dots.join("")} fill="#000" />
    </svg>
  );
}
