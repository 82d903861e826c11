"""Runs the real proxy, with its simulator in place of a provider."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "correct horse battery"
SECRET = "a-secret-for-tests-of-more-than-32-bytes"
CONFIG = """
[server]
port = 0
[logs]
flush_ms = 10
[rate_limit]
requests_per_second = 100000
[concurrency]
max_parallel = 600
[admin]
allow = ["127.0.0.1"]
[models.aliases]
deepseek-chat = "deepseek-flash"
"glm-4.5-flash" = "sim-zhipu"
[quota.tiers]
basic = { requests = 100000 }
poor = { requests = 1 }
"""


class Proxy:
    """A proxy that runs."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def login(self, username: str = "alice", agent: str = "test") -> dict[str, Any]:
        """A session of its own."""
        body = {"username": username, "password": PASSWORD}
        answer: dict[str, Any] = httpx.post(f"{self.url}/auth/login", json=body, headers={"user-agent": agent}).json()
        return answer

    def used(self, username: str = "alice") -> int:
        """Requests charged so far, as the ledger has them."""
        headers = {"authorization": f"Bearer {self.login(username)['token']}"}
        quota = httpx.get(f"{self.url}/auth/quota", headers=headers).json()
        return int(quota["limits"][0]["used"])


def expired(token: str) -> str:
    """The same access token, as it was when its time was over."""
    head, claims, _ = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed["exp"] = changed["iat"] - 10
    changed["iat"] -= 900
    signed = f"{head}.{_base64(json.dumps(changed).encode())}"
    return f"{signed}.{_base64(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One for all tests."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "users").mkdir()
    for name, rest in (("alice", ""), ("bob", ""), ("root", 'roles = ["admin"]\n')):
        tier = "poor" if name == "bob" else "basic"
        text = f'username = "{name}"\npassword = "{PASSWORD}"\nquota_tier = "{tier}"\n{rest}'
        (folder / "users" / f"{name}.toml").write_text(text)
    (folder / "config.toml").write_text(CONFIG)
    process = subprocess.Popen(
        ["node", str(ROOT / "dist" / "main.js"), "--config", str(folder / "config.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"], "JWT_SECRETS": f"test:{SECRET}"},
    )
    assert process.stdout is not None
    said: list[str] = []
    url = ""
    for line in process.stdout:
        said.append(line)
        if '"listening"' in line:
            url = json.loads(line)["url"]
            break
    assert url, f"the proxy did not start:\n{''.join(said)}"
    # Its output must be read, or it would wait.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    yield Proxy(process, url)
    process.terminate()
    process.wait(60)
