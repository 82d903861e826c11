"""ProxyAuth below the clients of both libraries."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import PASSWORD, Proxy, expired

from deepseek_proxy_client import FileStore, MemoryStore, ProxyAuth, ProxyError, Tokens

LIBRARIES = ["httpx", "httpx2"]
CHAT = {"model": "sim-fast", "stream": False, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(params=LIBRARIES)
def http(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


class Counting:
    """A client that counts logins and refreshes by path."""

    def __init__(self) -> None:
        self.paths: Counter[str] = Counter()
        self.client = httpx.Client(event_hooks={"request": [lambda request: self.paths.update([request.url.path])]})


def tokens_of(proxy: Proxy, agent: str) -> Tokens:
    answer = proxy.login(agent=agent)
    now = time.time()
    return Tokens(answer["token"], answer["refresh_token"], now + 900, now + answer["refresh_expires_in"], 900)


def test_50_threads_log_in_once(proxy: Proxy, http: Any) -> None:
    counting = Counting()
    auth = ProxyAuth(proxy.url, "alice", PASSWORD, http_client=counting.client)
    with http.Client(auth=auth, timeout=60) as client, ThreadPoolExecutor(50) as pool:
        barrier = threading.Barrier(50)

        def ask(_: int) -> int:
            barrier.wait()
            return int(client.get(f"{proxy.url}/auth/quota").status_code)

        assert set(pool.map(ask, range(50))) == {200}
    assert counting.paths == {"/auth/login": 1}


def test_500_tasks_refresh_once_and_are_charged_once(proxy: Proxy, http: Any) -> None:
    tokens = tokens_of(proxy, f"500 tasks {http.__name__}")
    counting = Counting()
    # The client takes it for fresh; the proxy does not.
    store = MemoryStore(replace(tokens, access_token=expired(tokens.access_token)))
    auth = ProxyAuth(proxy.url, store=store, http_client=counting.client)
    before = proxy.used()

    async def run() -> set[int]:
        limits = http.Limits(max_connections=40)
        async with http.AsyncClient(auth=auth, timeout=120, limits=limits) as client:

            async def ask() -> int:
                return int((await client.post(f"{proxy.url}/v1/chat/completions", json=CHAT)).status_code)

            return set(await asyncio.gather(*(ask() for _ in range(500))))

    assert asyncio.run(run()) == {200}
    assert counting.paths == {"/auth/refresh": 1}
    assert proxy.used() == before + 500


def test_refreshes_before_the_token_expires(proxy: Proxy, http: Any) -> None:
    counting = Counting()
    ahead = 0.0
    auth = ProxyAuth(proxy.url, "alice", PASSWORD, http_client=counting.client, now=lambda: time.time() + ahead)
    with http.Client(auth=auth) as client:
        assert client.get(f"{proxy.url}/auth/quota").status_code == 200
        ahead = 845.0
        assert client.get(f"{proxy.url}/auth/quota").status_code == 200
    assert counting.paths == {"/auth/login": 1, "/auth/refresh": 1}


def test_a_task_that_is_cancelled_ends_no_refresh(proxy: Proxy, http: Any) -> None:
    counting = Counting()
    auth = ProxyAuth(proxy.url, "alice", PASSWORD, http_client=counting.client)

    async def run() -> int:
        async with http.AsyncClient(auth=auth) as client:
            leaving = asyncio.ensure_future(client.get(f"{proxy.url}/auth/quota"))
            staying = asyncio.ensure_future(client.get(f"{proxy.url}/auth/quota"))
            await asyncio.sleep(0)
            leaving.cancel()
            return int((await staying).status_code)

    assert asyncio.run(run()) == 200
    assert counting.paths == {"/auth/login": 1}


def test_a_revoked_session(proxy: Proxy, http: Any, tmp_path: Path) -> None:
    counting = Counting()
    store = FileStore(tmp_path / "session.json")
    with_password = ProxyAuth(proxy.url, "alice", PASSWORD, store=store, http_client=counting.client)
    with http.Client(auth=with_password) as client:
        assert client.get(f"{proxy.url}/auth/quota").status_code == 200
        assert stat.S_IMODE((tmp_path / "session.json").stat().st_mode) == 0o600
        client.post(f"{proxy.url}/auth/logout-all")
        assert client.get(f"{proxy.url}/auth/quota").status_code == 200
        assert counting.paths["/auth/login"] == 2
        client.post(f"{proxy.url}/auth/logout-all")
    with http.Client(auth=ProxyAuth(proxy.url, store=store)) as client:
        over = client.get(f"{proxy.url}/auth/quota")
        assert (over.status_code, over.json()["error"]["code"]) == (401, "invalid_token")
        assert store.load() is None
        with pytest.raises(ProxyError) as raised:
            client.get(f"{proxy.url}/auth/quota")
        assert raised.value.code == "login_required"


def test_processes_that_share_a_file_refresh_once(proxy: Proxy, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "session.json")
    tokens = tokens_of(proxy, "shared file")
    store.save(replace(tokens, expires_at=0))
    counting = Counting()
    auths = [ProxyAuth(proxy.url, store=FileStore(tmp_path / "session.json"), http_client=counting.client)]
    auths += [ProxyAuth(proxy.url, store=FileStore(tmp_path / "session.json"), http_client=counting.client)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda auth: httpx.get(f"{proxy.url}/auth/quota", auth=auth).status_code, auths))
    assert answers == [200, 200]
    assert counting.paths == {"/auth/refresh": 1}


def test_a_refused_login_is_the_answer_and_is_not_repeated(proxy: Proxy, http: Any) -> None:
    counting = Counting()
    auth = ProxyAuth(proxy.url, "nobody", "wrong password", http_client=counting.client)
    with http.Client(auth=auth) as client:
        for _ in range(3):
            answer = client.post(f"{proxy.url}/v1/chat/completions", json=CHAT)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_credentials")
            assert answer.headers["x-should-retry"] == "false"
    assert counting.paths == {"/auth/login": 1}


def test_credentials_go_to_the_proxy_only(proxy: Proxy, http: Any) -> None:
    with http.Client(auth=ProxyAuth(f"{proxy.url}/v1/", "alice", PASSWORD)) as client:
        with pytest.raises(ValueError, match="is not the proxy"):
            client.get("http://127.0.0.1:1/v1/models")
        with pytest.raises(ValueError, match="is not the proxy"):
            client.get(proxy.url.replace("http:", "https:") + "/v1/models")


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="needs username"):
        ProxyAuth("http://localhost")
    with pytest.raises(ValueError, match="must be like"):
        ProxyAuth("localhost:8080", "alice", PASSWORD)
    with pytest.raises(ValueError, match="api_key are signed"):
        ProxyAuth("http://localhost", "alice", PASSWORD, signing_secret="dss_x")


def test_asks_for_the_code_of_a_second_factor() -> None:
    sent: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        if sent[-1].get("otp") != "123456":
            return httpx.Response(401, json={"error": {"code": "otp_required", "message": "A code, please."}})
        tokens = {"access_token": "a", "refresh_token": "r", "expires_in": 900, "refresh_expires_in": 1000}
        return httpx.Response(200, json=tokens)

    login = httpx.Client(transport=httpx.MockTransport(answer))
    ProxyAuth("http://proxy.example", "alice", PASSWORD, otp=lambda: "123456", http_client=login).login()
    assert [body.get("otp") for body in sent] == [None, "123456"]
    with pytest.raises(ProxyError, match="A code, please"):
        ProxyAuth("http://proxy.example", "alice", PASSWORD, http_client=login).login()
