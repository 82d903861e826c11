import { parseConfig, ConfigError, type Env } from "../../src/config/load.ts";

/** The lines that refuse a config, without the file's name before and the line's number after each; [] where it is fine. */
export function problemsOf(toml: string, env: Env = {}): string[] {
  try {
    parseConfig(toml, "config.toml", env);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.message.split("\n").map((line) => line.replace(/^config\.toml: /, "").replace(/ \(line \d+\)$/, ""));
  }
}
