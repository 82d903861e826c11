"""Clients of the predecessor know nothing of this package: they use plain HTTP, and go on working unchanged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import httpx
import pytest
from conftest import PASSWORD, Proxy, expired

MESSAGES = [{"role": "user", "content": "Say hello."}]
# Old names, which are aliases here; the third is a provider that sends usage in a chunk without choices if it is asked
# for, and the proxy always asks.
MODELS = ("deepseek-chat", "glm-4.5-flash", "sim-usage-after")


class OldClient:
    """Logs in again shortly before a token ends, or once after a 401; takes the first choice of every chunk."""

    def __init__(self, url: str, username: str, password: str, now: Callable[[], float] = time.time) -> None:
        self.url = url
        self.credentials = {"username": username, "password": password}
        self.now = now
        self.http = httpx.Client(timeout=30)
        self.token = ""
        self.ends_at = 0.0
        self.logins = 0

    def current_token(self) -> str:
        if self.ends_at - self.now() < 5:
            self.log_in()
        return self.token

    def log_in(self) -> None:
        self.logins += 1
        response = self.http.post(f"{self.url}/auth/login", json=self.credentials)
        response.raise_for_status()
        answer = response.json()
        self.token = answer["token"]
        self.ends_at = self.now() + answer.get("expires_in", 60)

    def stream(self, model: str, **fields: Any) -> Iterator[str]:
        body = {"model": model, "messages": MESSAGES, "stream": True, **fields}
        for is_last in (False, True):
            headers = {"Authorization": f"Bearer {self.current_token()}"}
            with self.http.stream("POST", f"{self.url}/chat/completions", json=body, headers=headers) as response:
                if response.status_code == 401 and not is_last:
                    self.log_in()
                    continue
                response.raise_for_status()
                yield from _pieces(response)
                return

    def ask_patiently(self, model: str) -> str:
        """Waits a little and asks again where the proxy is busy with the same token, twice at most."""
        for repeat in range(3):
            try:
                return "".join(self.stream(model))
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 429 or repeat == 2:
                    raise
                time.sleep(0.15 * 2**repeat)
        raise AssertionError("unreachable")


def _pieces(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if not line.startswith("data: "):
            continue
        data = line[len("data: ") :]
        if data == "[DONE]":
            return
        # No check of either: a chunk without choices, or content that is null, breaks this client.
        delta = json.loads(data)["choices"][0].get("delta", {})
        if "content" in delta:
            yield delta["content"]


@pytest.fixture
def old(proxy: Proxy) -> OldClient:
    return OldClient(proxy.url, "alice", PASSWORD)


@pytest.mark.parametrize("model", MODELS)
def test_streams(old: OldClient, model: str) -> None:
    pieces = list(old.stream(model, temperature=0.2, max_tokens=40))
    assert len(pieces) > 1
    assert "".join(pieces)
    assert old.logins == 1


def test_logins_in_a_row_give_the_same_token(old: OldClient) -> None:
    tokens = set()
    for _ in range(3):
        old.log_in()
        tokens.add(old.token)
    assert len(tokens) == 1


def test_a_token_that_is_about_to_end_is_replaced(proxy: Proxy) -> None:
    later = 0.0
    old = OldClient(proxy.url, "alice", PASSWORD, now=lambda: time.time() + later)
    assert "".join(old.stream(MODELS[0]))
    later = old.ends_at - time.time() - 4
    assert "".join(old.stream(MODELS[0]))
    assert old.logins == 2


def test_a_refused_token_is_replaced_once(proxy: Proxy, old: OldClient) -> None:
    old.log_in()
    old.token = expired(old.token)
    assert "".join(old.stream(MODELS[0]))
    assert old.logins == 2
    wrong = OldClient(proxy.url, "alice", "not the password")
    with pytest.raises(httpx.HTTPStatusError) as raised:
        list(wrong.stream(MODELS[0]))
    assert raised.value.response.status_code == 401


def test_whole_answers(proxy: Proxy, old: OldClient) -> None:
    headers = {"Authorization": f"Bearer {old.current_token()}"}
    body = {"model": MODELS[0], "messages": MESSAGES, "stream": False}
    response = httpx.post(f"{proxy.url}/chat/completions", json=body, headers=headers, timeout=30)
    response.raise_for_status()
    assert response.json()["choices"][0]["message"]["content"]


def test_without_stream_the_old_path_streams(proxy: Proxy, old: OldClient) -> None:
    headers = {"Authorization": f"Bearer {old.current_token()}"}
    body = {"model": MODELS[0], "messages": MESSAGES}
    with httpx.stream("POST", f"{proxy.url}/chat/completions", json=body, headers=headers, timeout=30) as response:
        response.raise_for_status()
        assert "".join(_pieces(response))


def test_without_a_token_it_is_refused(proxy: Proxy) -> None:
    response = httpx.post(f"{proxy.url}/chat/completions", json={"model": MODELS[0], "messages": MESSAGES})
    assert response.status_code == 401


def test_threads_with_a_client_each(proxy: Proxy) -> None:
    clients = [OldClient(proxy.url, "alice", PASSWORD) for _ in range(8)]
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda client: client.ask_patiently(MODELS[0]), clients))
    assert all(answers)
    assert len({client.token for client in clients}) == 1


def test_a_second_request_with_the_same_token_is_served_or_refused_with_429(proxy: Proxy, old: OldClient) -> None:
    token = old.current_token()
    assert token
    start = threading.Barrier(2)

    def ask() -> str:
        start.wait()
        return old.ask_patiently(MODELS[0])

    with ThreadPoolExecutor(2) as pool:
        answers = [future.result() for future in [pool.submit(ask), pool.submit(ask)]]
    assert all(answers)


def test_its_panel_finds_its_counters(proxy: Proxy, old: OldClient) -> None:
    old.log_in()
    text = httpx.get(f"{proxy.url}/metrics").text
    assert 'login_attempts_total{result="success"}' in text
    assert 'login_attempts_total{result="failure"}' in text
    assert "rate_limit_rejections_total" in text
