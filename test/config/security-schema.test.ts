import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";

const alerts = (lines: string) => () => parseConfig(`[alerts]\n${lines}`, "config.toml").alerts;

describe("[alerts] and [security]", () => {
  it("have defaults that need no webhook", () => {
    expect(alerts("")()).toMatchObject({
      events: ["login.locked", "login.unlocked", "session.reuse_detected", "provider.alert", "overload.began"],
      allow_private: false,
      secret_env: "ALERT_WEBHOOK_SECRET",
    });
    expect(parseConfig("", "config.toml").security).toMatchObject({
      login_free_failures: 5,
      login_max_wait_seconds: 900,
    });
  });

  it("take a webhook by https, and by http where private addresses are allowed", () => {
    expect(alerts('webhook_url = "https://hooks.example.com/x"')().webhook_url).toBe("https://hooks.example.com/x");
    expect(alerts('webhook_url = "http://10.0.0.1/x"\nallow_private = true')().webhook_url).toBe("http://10.0.0.1/x");
  });

  it.each([
    ['webhook_url = "http://hooks.example.com/"', "expected https://"],
    ['webhook_url = "https://user:pass@hooks.example.com/"', "expected no user name or password"],
    ['webhook_url = "file:///etc/passwd"', "expected a valid url"],
    ['webhook_url = "not a url"', "expected a valid url"],
    ['events = ["chat.finished"]', "events.0"],
    ["max_attempts = 0", "at least 1"],
    ['webhook_secret = "x"', "webhook_secret"],
  ])("refuse %s", (line, message) => {
    expect(alerts(line)).toThrow(message);
  });

  it("do not repeat a webhook's URL in a message, which may hold a secret", () => {
    let message = "";
    try {
      alerts('webhook_url = "http://hooks.example.com/planted"')();
    } catch (error) {
      message = String(error);
    }
    expect(message).toContain("alerts.webhook_url");
    expect(message).not.toContain("planted");
  });
});
