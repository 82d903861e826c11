import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Files of a certificate of 127.0.0.1, signed by itself. */
export interface Certificate {
  readonly certificate: string;
  readonly key: string;
  /** Both in one file, as Kafka wants them. */
  readonly keyAndCertificate: string;
}

/** Makes a certificate in `folder`. */
export function makeCertificate(folder: string): Certificate {
  const [key, certificate, both] = [join(folder, "key.pem"), join(folder, "certificate.pem"), join(folder, "both.pem")];
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=127.0.0.1",
      "-addext",
      "subjectAltName=IP:127.0.0.1",
      "-keyout",
      key,
      "-out",
      certificate,
    ],
    { stdio: "ignore" },
  );
  writeFileSync(both, readFileSync(key, "utf8") + readFileSync(certificate, "utf8"));
  return { certificate, key, keyAndCertificate: both };
}
