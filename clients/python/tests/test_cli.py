from __future__ import annotations

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD, Proxy

from deepseek_proxy_client import ProxyError
from deepseek_proxy_client.cli import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DSPROXY_URL", "DSPROXY_KEY", "DSPROXY_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DSPROXY_HOME", str(tmp_path))
    return tmp_path


def log_in(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, username: str = "alice") -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert main(["login", username, "--password-stdin", "--url", proxy.url]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_session(
    proxy: Proxy, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quota"]) == 2
    log_in(proxy, monkeypatch)
    assert stat.S_IMODE((home / "session.json").stat().st_mode) == 0o600
    assert PASSWORD not in (home / "session.json").read_text()
    capsys.readouterr()
    assert main(["chat", "--json", "-m", "sim-fast", "hello"]) == 0
    assert said(capsys)["finish_reason"] == "stop"
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    assert main(["chat", "-m", "sim-fast"]) == 0
    answer = capsys.readouterr().out
    assert "\x1b" not in answer
    assert answer.endswith("\n")
    assert not answer.endswith("\n\n")
    for command in (["quota"], ["usage", "--by", "model"], ["models"], ["keys"]):
        assert main([*command, "--json"]) == 0
        assert said(capsys)
        assert main(command) == 0
        shown = capsys.readouterr().out
        if command == ["quota"]:
            assert re.search(r" per \w+: .*, resets \d{4}-\d\d-\d\d \d\d:\d\d$", shown, re.MULTILINE)
    assert main(["keys", "create", "laptop", "--json"]) == 0
    key = said(capsys)
    monkeypatch.setenv("DSPROXY_KEY", key["key"])
    assert main(["models", "--url", proxy.url]) == 0
    monkeypatch.delenv("DSPROXY_KEY")
    assert main(["keys", "delete", key["id"]]) == 0
    assert main(["admin", "get", "users"]) == 1
    assert "forbidden" in capsys.readouterr().err
    assert main(["chat", "-m", "no-such-model", "hello", "--json"]) == 1
    assert said(capsys)["error"]["code"] == "model_not_found"
    assert main(["logout"]) == 0
    assert not (home / "session.json").exists()


def test_admin(proxy: Proxy, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log_in(proxy, monkeypatch, "root")
    capsys.readouterr()
    assert main(["admin", "GET", "users", "--query", "search=ali", "--json"]) == 0
    assert [user["username"] for user in said(capsys)["users"]] == ["alice"]


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_the_answer(proxy: Proxy, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(proxy, monkeypatch)
    command = [sys.executable, "-m", "deepseek_proxy_client.cli", "chat", "-m", "sim-slow:20", "hello"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts what runs in the background, such as these tests, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(3)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_amounts_have_all_digits(
    proxy: Proxy, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(proxy, monkeypatch)
    limits = [
        {"metric": "tokens", "per": "month", "used": 12345678, "max": 100000000, "reset_at": None},
        {"metric": "cost", "per": "total", "used": 1e-09, "max": 5.0, "currency": "CNY", "reset_at": None},
    ]
    monkeypatch.setattr("deepseek_proxy_client.Client.quota", lambda _: {"limits": limits})
    capsys.readouterr()
    assert main(["quota"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["tokens per month: 12345678 of 100000000", "cost per total: 0.000000001 of 5 CNY"]


def test_wrong_usage_says_what_is_right(
    proxy: Proxy, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(proxy, monkeypatch, "root")
    capsys.readouterr()
    assert main(["admin", "GET", "users", "--query", "tier"]) == 2
    assert "--query tier: expected NAME=VALUE." in capsys.readouterr().err
    assert main(["admin", "POST", "users", "--body", "{bad"]) == 2
    assert "--body: expected JSON: " in capsys.readouterr().err
    monkeypatch.setattr("getpass.getpass", lambda: input())
    assert main(["login", "alice", "--url", proxy.url]) == 2
    assert "nobody can be asked" in capsys.readouterr().err


def test_a_question_about_the_quota_does_not_end_a_conversation(
    proxy: Proxy, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(proxy, monkeypatch)

    def refused(_: object) -> None:
        raise ProxyError("Not now.", code="proxy_overloaded")

    monkeypatch.setattr("deepseek_proxy_client.Client.quota", refused)
    typed = io.StringIO("/quota\nhello\n/exit\n")
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    capsys.readouterr()
    assert main(["chat", "-m", "sim-fast"]) == 0
    said = capsys.readouterr()
    assert "Not now. (proxy_overloaded)" in said.err
    assert "One chunk after another" in said.out
