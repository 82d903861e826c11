import type { Sink } from "./bus.ts";
import { createEventText, eventFacts } from "./event-facts.ts";
import type { Logger } from "./logger.ts";

/**
 * One line in the proxy's own log for each chat and each login. Other refusals are logged where their response is sent.
 *
 * @param textOf from createEventText
 */
export function createLogSink(log: Logger, textOf = createEventText()): Sink {
  return (event) => {
    switch (event.type) {
      case "chat.finished":
        log.infoJson(textOf(event), "chat finished");
        return;
      case "login.succeeded":
        log.info(eventFacts(event), "login succeeded");
        return;
      case "login.failed":
        log.info(eventFacts(event), "login failed");
        return;
      case "login.locked":
        log.warn(eventFacts(event), "too many failed logins: the next one has to wait");
        return;
      case "login.unlocked":
        log.info(eventFacts(event), "failed logins cleared");
        return;
      case "session.reuse_detected":
        log.warn(eventFacts(event), "a refresh token was used twice: its session has been ended");
        return;
      case "session.ended":
      case "api_key.created":
      case "api_key.revoked":
      case "password.changed":
        log.info(eventFacts(event), "credentials changed");
        return;
      case "provider.alert":
        log.error(eventFacts(event), "a provider needs its operator");
        return;
      case "admin.changed":
        log.info(eventFacts(event), "change by an administrator");
        return;
      case "config.reloaded":
        log.info(eventFacts(event), "the config has been reloaded");
        if (event.restartNeeded.length > 0)
          log.warn({ restart_needed: event.restartNeeded }, "some changes of the config need a restart");
        return;
      case "config.rejected":
        log.error(eventFacts(event), "the config on disk is invalid; the previous one stays in force");
        return;
      case "quota.exceeded":
      case "rate_limit.rejected":
      case "request.finished":
        return;
    }
  };
}
