"""dsproxy: the proxy from a terminal."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from . import Callbacks, Client, FileStore, ProxyAuth, ProxyError, RetryNotice, StreamBrokenError
from ._version import VersionMismatchWarning, __version__

_HELP = "/clear forgets the conversation, /model NAME changes the model, /quota, /exit"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit code: 0, 1 for what the proxy refused, 2 for wrong usage, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", VersionMismatchWarning)
        warnings.showwarning = _tell_warning
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    try:
        code: int = arguments.run(arguments)
        return code
    except ProxyError as error:
        if arguments.json:
            print(json.dumps({"error": {"code": error.code, "message": error.message, "details": dict(error.details)}}))
        print(_paint("31", f"dsproxy: {error.message} ({error.code})", sys.stderr), file=sys.stderr)
        return 1
    except EOFError:
        print("dsproxy: Standard input has ended: nobody can be asked. See --help.", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"dsproxy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dsproxy", description="Talk to a deepseek-proxy.")
    parser.add_argument("--version", action="version", version=__version__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=os.environ.get("DSPROXY_URL"), help="the proxy's root; or DSPROXY_URL")
    common.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, parents=[common])
        added.set_defaults(run=run)
        return added

    login = command("login", _login, "log in; the session is kept in a file that only you can read")
    login.add_argument("username")
    login.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    command("logout", _logout, "end the session")
    chat = command("chat", _chat, "ask once, or talk; a prompt may come through a pipe")
    chat.add_argument("prompt", nargs="*")
    chat.add_argument("--model", "-m", default=os.environ.get("DSPROXY_MODEL", "deepseek-flash"))
    chat.add_argument("--system", help="the system message")
    chat.add_argument("--reasoning", action="store_true", help="show the reasoning as well")
    command("quota", _quota, "limits and what is used of them")
    usage = command("usage", _usage, "what was used")
    usage.add_argument("--from", dest="from_", metavar="DAY")
    usage.add_argument("--to", metavar="DAY")
    usage.add_argument("--by", choices=("day", "model", "key", "both"), default="day")
    command("models", _models, "what can be asked")
    keys = command("keys", _keys, "API keys: list, create NAME, delete ID")
    keys.add_argument("action", nargs="?", choices=("list", "create", "delete"), default="list")
    keys.add_argument("subject", nargs="?", metavar="NAME|ID")
    keys.add_argument("--expires-at", metavar="TIME")
    keys.add_argument("--require-signature", action="store_true")
    admin = command("admin", _admin, "any admin route, such as: admin GET users --query tier=basic")
    admin.add_argument("method", type=str.upper, choices=("GET", "POST", "PUT", "PATCH", "DELETE"))
    admin.add_argument("path", help="below /admin/")
    admin.add_argument("--body", help="JSON")
    admin.add_argument("--query", action="append", default=[], metavar="NAME=VALUE")
    return parser


def _folder() -> Path:
    base = os.environ.get("DSPROXY_HOME")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dsproxy"


def _settings() -> dict[str, str]:
    try:
        settings = json.loads((_folder() / "settings.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return settings if isinstance(settings, dict) else {}


def _client(arguments: argparse.Namespace) -> Client:
    settings = _settings()
    url = arguments.url or settings.get("url")
    if not url:
        raise ValueError("Which proxy? Give --url or DSPROXY_URL, or log in first.")
    key = os.environ.get("DSPROXY_KEY")
    if key:
        return _of(ProxyAuth(url, api_key=key, signing_secret=os.environ.get("DSPROXY_SIGNING_SECRET")))
    auth = ProxyAuth(url, store=FileStore(_folder() / "session.json"))
    if auth.base_url != settings.get("url"):
        raise ValueError(f"You are not logged in to {auth.base_url}: dsproxy login USERNAME --url {auth.base_url}")
    return _of(auth)


def _of(auth: ProxyAuth) -> Client:
    return Client(auth, on_retry=_tell_retry)


def _tell_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(_paint("33", f"dsproxy: {message}", sys.stderr), file=sys.stderr)


def _tell_retry(notice: RetryNotice) -> None:
    what = notice.error.message.rstrip(".")
    print(_paint("33", f"{what}. Again in {notice.wait:.1f} s.", sys.stderr), file=sys.stderr)


def _login(arguments: argparse.Namespace) -> int:
    url = arguments.url or _settings().get("url")
    if not url:
        raise ValueError("Which proxy? Give --url or DSPROXY_URL.")
    password = sys.stdin.readline().rstrip("\n") if arguments.password_stdin else getpass.getpass()
    store = FileStore(_folder() / "session.json")
    store.save(None)
    auth = ProxyAuth(url, arguments.username, password, otp=_ask_code, store=store)
    auth.login()
    (_folder() / "settings.json").write_text(json.dumps({"url": auth.base_url, "username": arguments.username}))
    _print(arguments, {"url": auth.base_url, "username": arguments.username}, f"Logged in to {auth.base_url}.")
    return 0


def _ask_code() -> str:
    return input("Code of your authenticator app, or a recovery code: ").strip()


def _logout(arguments: argparse.Namespace) -> int:
    _client(arguments).auth.logout()
    _print(arguments, {}, "Logged out.")
    return 0


def _chat(arguments: argparse.Namespace) -> int:
    client = _client(arguments)
    messages: list[dict[str, str]] = []
    if arguments.system:
        messages.append({"role": "system", "content": arguments.system})
    prompt = " ".join(arguments.prompt)
    if not sys.stdin.isatty():
        piped = sys.stdin.read().strip()
        prompt = "\n\n".join(part for part in (prompt, piped) if part)
        if not prompt:
            raise ValueError("There is no prompt.")
    if prompt:
        return _ask(client, arguments, [*messages, {"role": "user", "content": prompt}])[0]
    return _talk(client, arguments, messages)


def _talk(client: Client, arguments: argparse.Namespace, opening: Sequence[dict[str, str]]) -> int:
    messages = list(opening)
    print(_paint("2", _HELP, sys.stdout))
    while True:
        try:
            line = input(_paint("36", f"{arguments.model}> ", sys.stdout)).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        word, _, rest = line.partition(" ")
        if word in ("/exit", "/quit"):
            return 0
        if word == "/clear":
            messages = list(opening)
        elif word == "/model" and rest.strip():
            arguments.model = rest.strip()
        elif line.startswith("/") and word != "/quota":
            print(_HELP)
        elif line:
            asked = [*messages, {"role": "user", "content": line}]
            try:
                if word == "/quota":
                    _quota(arguments)
                    continue
                code, text = _ask(client, arguments, asked)
            except ProxyError as error:
                print(_paint("31", f"{error.message} ({error.code})", sys.stderr), file=sys.stderr)
                continue
            if code == 0:
                messages = [*asked, {"role": "assistant", "content": text}]


def _ask(client: Client, arguments: argparse.Namespace, messages: Sequence[dict[str, str]]) -> tuple[int, str]:
    """Streams one answer. Returns the exit code and the text; 130 after Ctrl-C, which ends the request."""

    def write(text: str) -> None:
        if not arguments.json:
            print(text, end="", flush=True)

    def reason(text: str) -> None:
        if arguments.reasoning and not arguments.json:
            print(_paint("2", text, sys.stdout), end="", flush=True)

    def warn(warning: str) -> None:
        print(_paint("33", warning, sys.stderr), file=sys.stderr)

    callbacks = Callbacks(on_token=write, on_reasoning=reason, on_quota_warning=warn, on_retry=_tell_retry)
    stream = client.chat(arguments.model, messages, callbacks)
    try:
        result = stream.result()
    except KeyboardInterrupt:
        stream.close()
        write("\n")
        return 130, stream.partial.text
    except StreamBrokenError:
        write("\n")
        raise
    usage = None if result.usage is None else dict(result.usage)
    answer = {"text": result.text, "reasoning": result.reasoning, "finish_reason": result.finish_reason, "usage": usage}
    if arguments.json or not result.text.endswith("\n"):
        _print(arguments, answer, "")
    return 0, result.text


def _quota(arguments: argparse.Namespace) -> int:
    quota = _client(arguments).quota()
    _print(arguments, quota, "\n".join(_line_of(limit) for limit in quota["limits"]) or "There are no limits.")
    return 0


def _line_of(limit: Any) -> str:
    amount = f"{_plain(limit['used'])} of {_plain(limit['max'])} {limit.get('currency', '')}".rstrip()
    resets = f", resets {_local(limit['reset_at'])}" if limit["reset_at"] else ""
    return f"{limit['metric']} per {limit['per']}: {amount}{resets}"


def _plain(amount: float) -> str:
    """All digits of a number, without an exponent."""
    text = format(Decimal(str(amount)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _local(time: str) -> str:
    """A time of the proxy as this machine's clock shows it."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone().strftime("%Y-%m-%d %H:%M")


def _usage(arguments: argparse.Namespace) -> int:
    usage = _client(arguments).usage(from_=arguments.from_, to=arguments.to, by=arguments.by)
    lines = ["\t".join(("day", "model", "key", "requests", "tokens", "cost"))]
    for row in usage["rows"]:
        costs = " ".join(f"{cost['cost']} {cost['currency']}" for cost in row["costs"])
        names = (row.get("day", ""), row.get("model", ""), row.get("api_key", ""))
        lines.append("\t".join((*names, str(row["requests"]), str(row["tokens"]), costs)))
    _print(arguments, usage, "\n".join(lines))
    return 0


def _models(arguments: argparse.Namespace) -> int:
    models = _client(arguments).models()
    _print(arguments, models, "\n".join(model["id"] for model in models["data"]))
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    client = _client(arguments)
    if arguments.action != "list" and not arguments.subject:
        raise ValueError(f"keys {arguments.action} needs a {'name' if arguments.action == 'create' else 'key id'}.")
    if arguments.action == "create":
        settings = {"expires_at": arguments.expires_at} if arguments.expires_at else {}
        made = client.create_key(arguments.subject, require_signature=arguments.require_signature, **settings)
        secret = f"\nsigning secret: {made['signing_secret']}" if "signing_secret" in made else ""
        _print(arguments, made, f"{made['key']}{secret}")
    elif arguments.action == "delete":
        client.delete_key(arguments.subject)
        _print(arguments, {}, "Deleted.")
    else:
        keys = client.keys()
        _print(arguments, keys, "\n".join(f"{key['id']}\t{key['name']}" for key in keys["keys"]))
    return 0


def _admin(arguments: argparse.Namespace) -> int:
    query: dict[str, list[str]] = {}
    for pair in arguments.query:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ValueError(f"--query {pair}: expected NAME=VALUE.")
        query.setdefault(name, []).append(value)
    try:
        body = None if arguments.body is None else json.loads(arguments.body)
    except ValueError as error:
        raise ValueError(f"--body: expected JSON: {error}") from error
    answer = _client(arguments).admin(arguments.method, arguments.path, body, query)
    print(json.dumps(answer, ensure_ascii=False, indent=None if arguments.json else 2))
    return 0


def _print(arguments: argparse.Namespace, data: Any, text: str) -> None:
    print(json.dumps(data, ensure_ascii=False) if arguments.json else text)


def _paint(code: str, text: str, stream: Any) -> str:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


if __name__ == "__main__":
    sys.exit(main())
