from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conftest import PASSWORD, Proxy

from deepseek_proxy_client import (
    AsyncClient,
    Callbacks,
    Client,
    ConnectionError,
    ForbiddenError,
    InvalidRequestError,
    ProxyAuth,
    ProxyError,
    QuotaExceededError,
    RetryNotice,
    RetryPolicy,
    StreamBrokenError,
)

MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    with Client(ProxyAuth(proxy.url, "alice", PASSWORD), sleep=lambda _: None) as own:
        yield own


def test_streams_and_calls_back(client: Client) -> None:
    texts: list[str] = []
    reasonings: list[str] = []
    usages: list[Any] = []
    callbacks = Callbacks(on_token=texts.append, on_reasoning=reasonings.append, on_usage=usages.append)
    result = client.chat("deepseek-v4-pro", MESSAGES, callbacks, max_tokens=30).result()
    assert result.text == "".join(texts)
    assert result.reasoning == "".join(reasonings)
    assert len(usages) == 1
    assert result.usage is not None


def test_async_streams(proxy: Proxy) -> None:
    async def run() -> str:
        async with AsyncClient(ProxyAuth(proxy.url, "alice", PASSWORD)) as client:
            text = ""
            async for chunk in client.chat("sim-crlf", MESSAGES):
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
            assert (await client.quota())["username"] == "alice"
            with pytest.raises(StreamBrokenError) as raised:
                await client.chat("sim-truncate", MESSAGES).result()
            assert raised.value.partial.text
            return text

    assert asyncio.run(run())


@pytest.mark.parametrize("model", ["sim-truncate", "sim-reset-mid", "sim-error-event:3", "sim-bad-json"])
def test_a_broken_answer_is_not_asked_for_again(client: Client, model: str) -> None:
    texts: list[str] = []
    retries: list[RetryNotice] = []
    with pytest.raises(StreamBrokenError) as raised:
        client.chat(model, MESSAGES, Callbacks(on_token=texts.append, on_retry=retries.append)).result()
    assert raised.value.partial.text == "".join(texts) != ""
    assert retries == []


def test_leaving_ends_the_request(client: Client) -> None:
    with client.chat("sim-slow:5", MESSAGES) as stream:
        assert next(iter(stream))["choices"]
    assert client.quota()["limits"]


def test_quota_warning_and_exhaustion(proxy: Proxy) -> None:
    warnings: list[str] = []
    with Client(ProxyAuth(proxy.url, "bob", PASSWORD)) as client:
        client.chat("sim-fast", MESSAGES, Callbacks(on_quota_warning=warnings.append)).result()
        assert warnings == ["100% of requests per month used"]
        with pytest.raises(QuotaExceededError) as raised:
            client.chat("sim-fast", MESSAGES).result()
        assert raised.value.details["metric"] == "requests"
        assert proxy.used("bob") == 1


def test_a_retry_is_charged_once(proxy: Proxy) -> None:
    """The first try is refused with 503 ahead of the proxy; the second gets through."""
    before = proxy.used()
    refused: list[str] = []

    class Busy(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/completions") and not refused:
                refused.append(request.url.path)
                return httpx.Response(503, json={"error": {"code": "proxy_overloaded", "message": "busy"}})
            return super().handle_request(request)

    waits: list[float] = []
    retries: list[RetryNotice] = []
    auth = ProxyAuth(proxy.url, "alice", PASSWORD)
    with Client(auth, http_client=httpx.Client(transport=Busy()), sleep=waits.append) as client:
        client.chat("sim-fast", MESSAGES, Callbacks(on_retry=retries.append)).result()
    assert [notice.error.code for notice in retries] == ["proxy_overloaded"]
    assert len(waits) == 1
    assert proxy.used() == before + 1


@pytest.mark.parametrize("said", ["", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", "half"])
def test_a_connection_that_is_cut_is_not_used_again(said: str) -> None:
    """Wherever it is cut after the request was sent, the answer may have been charged."""
    if said == "half":
        said = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n" + 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    server = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(said.encode())

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with Client(ProxyAuth(url, api_key="dsp_x"), sleep=lambda _: None) as client:
        with pytest.raises((ConnectionError, StreamBrokenError)) as raised:
            client.chat("sim-fast", MESSAGES).result()
        assert raised.value.code in ("connection_lost", "stream_broken")
    server.close()
    assert len(asked) == 1


_HALF = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
_HTML = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>Hi</p>"


@pytest.mark.parametrize(
    ("answer", "what", "code"),
    [
        (_HALF % b"200 OK", "quota", "connection_lost"),
        (_HALF % b"503 Busy", "quota", "connection_lost"),
        (_HALF % b"503 Busy", "chat", "connection_lost"),
        (_HTML, "quota", "not_json"),
        (_HTML, "login", "not_json"),
    ],
)
def test_what_is_no_answer_is_an_error_of_this_package(answer: bytes, what: str, code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                # To close with something unread would reset the connection.
                while connection.recv(65536):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        auth = ProxyAuth(url, "alice", "x") if what == "login" else ProxyAuth(url, api_key="dsp_x")
        client = Client(auth, retry=RetryPolicy(max_retries=0))
        call = client.chat("sim-fast", MESSAGES).result if what == "chat" else client.quota
        with client, pytest.raises(ProxyError) as raised:
            call()
        assert raised.value.code == code


def test_repeats_where_no_server_was_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    waits: list[float] = []
    with Client(ProxyAuth(f"http://127.0.0.1:{port}", api_key="dsp_x"), sleep=waits.append) as client:
        with pytest.raises(ConnectionError) as raised:
            client.quota()
        assert raised.value.code == "connection_failed"
    assert len(waits) == 2


def test_keys_usage_and_models(client: Client, proxy: Proxy) -> None:
    made = client.create_key("laptop")
    with Client(ProxyAuth(proxy.url, api_key=made["key"])) as other:
        assert other.models()["data"]
        with pytest.raises(ForbiddenError):
            other.keys()
    assert [key["name"] for key in client.keys()["keys"]] == ["laptop"]
    client.delete_key(made["id"])
    with pytest.raises(InvalidRequestError) as raised:
        client.create_key("x", expires_at="2001-01-01T00:00:00Z")
    assert raised.value.param == "expires_at"


def test_admin(proxy: Proxy) -> None:
    with Client(ProxyAuth(proxy.url, "root", PASSWORD)) as client:
        client.admin("POST", "users", {"username": "carol", "quota_tier": "basic"})
        assert client.admin("GET", "users/carol")["username"] == "carol"
        names = [user["username"] for user in client.admin("GET", "users", query={"search": "car"})["users"]]
        assert names == ["carol"]
        client.admin("DELETE", "users/carol")
