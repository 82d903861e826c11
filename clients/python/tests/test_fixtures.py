"""What the last versions of the proxy answered, as scripts/record-client-fixtures.mjs wrote it down."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepseek_proxy_client import Callbacks, Client, MemoryStore, ProxyAuth, ProxyError, RetryPolicy, StreamBrokenError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
VERSIONS = sorted(path.name for path in FIXTURES.iterdir())
ERRORS = [(path.parent.name, path.stem) for path in sorted(FIXTURES.glob("*/error-*.json"))]
CLASSES = {
    400: "InvalidRequestError",
    401: "AuthenticationError",
    402: "QuotaExceededError",
    403: "ForbiddenError",
    404: "InvalidRequestError",
    405: "InvalidRequestError",
    429: "RateLimitError",
    502: "UnavailableError",
    503: "UnavailableError",
}


def read(version: str, name: str) -> Any:
    return json.loads((FIXTURES / version / f"{name}.json").read_text("utf-8"))


def replaying(version: str, name: str, tokens: str = "login", store: MemoryStore | None = None) -> Client:
    """A client that gets this answer to all requests but those for tokens."""

    def answer(request: httpx.Request) -> httpx.Response:
        is_token = request.url.path in ("/auth/login", "/auth/refresh")
        recorded = read(version, tokens if is_token else name)["response"]
        return httpx.Response(recorded["status"], headers=recorded["headers"], content=recorded["body"].encode())

    http = httpx.Client(transport=httpx.MockTransport(answer))
    auth = ProxyAuth("http://proxy.test", "alice", "any", http_client=http, store=store)
    return Client(auth, http_client=http, retry=RetryPolicy(max_retries=0))


def chat(version: str, name: str, callbacks: Callbacks | None = None) -> Any:
    body = dict(read(version, name)["request"]["body"])
    with replaying(version, name) as client:
        return client.chat(body.pop("model"), body.pop("messages"), callbacks, **body).result()


def test_has_no_more_than_the_last_two_versions() -> None:
    assert len(VERSIONS) in (1, 2)


@pytest.mark.parametrize("version", VERSIONS)
def test_logs_in_and_refreshes(version: str) -> None:
    store = MemoryStore()
    replaying(version, "quota", store=store).quota()
    first = store.load()
    assert first is not None
    assert (first.access_token, first.refresh_token) == ("recorded-access-token", "recorded-refresh-token")
    store.save(replace(first, expires_at=0))
    replaying(version, "quota", tokens="refresh", store=store).quota()
    second = store.load()
    assert second is not None
    assert second.expires_at > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_reads_quota_usage_balance_models_and_keys(version: str) -> None:
    assert replaying(version, "quota").quota()["limits"][0]["max"] == 100000
    assert replaying(version, "usage").usage()["rows"][0]["requests"] > 0
    assert "is_available" in replaying(version, "balance").balance()
    assert "deepseek-flash" in [model["id"] for model in replaying(version, "models").models()["data"]]
    assert replaying(version, "keys").keys()["keys"][0]["name"] == "laptop"
    assert replaying(version, "key-created").create_key("laptop")["key"] == "dsp_recorded"


@pytest.mark.parametrize("version", VERSIONS)
def test_reads_streams(version: str) -> None:
    result = chat(version, "stream-reasoning")
    assert result.reasoning
    assert result.text
    assert result.finish_reason == "length"
    assert result.usage["completion_tokens"] == 30
    assert chat(version, "stream-usage-asked").usage["total_tokens"] > 0
    warned: list[str] = []
    chat(version, "stream-quota-warning", Callbacks(on_quota_warning=warned.append))
    assert warned == ["100% of requests per month used"]


@pytest.mark.parametrize("name", ["stream-truncated", "stream-error"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_that_broke_off(version: str, name: str) -> None:
    with pytest.raises(StreamBrokenError) as raised:
        chat(version, name)
    said = re.search(r'"code":"(\w+)"', read(version, name)["response"]["body"])
    assert said is not None
    assert raised.value.code == said[1]
    assert raised.value.partial.finish_reason is None


@pytest.mark.parametrize(("version", "name"), ERRORS)
def test_errors(version: str, name: str) -> None:
    exchange = read(version, name)
    response = exchange["response"]
    client = replaying(version, name, tokens=name if name == "error-401-credentials" else "login")
    with pytest.raises(ProxyError) as raised:
        _ = chat(version, name) if "body" in exchange["request"] else client.quota()
    error, said = raised.value, json.loads(response["body"])["error"]
    assert type(error).__name__ == CLASSES[response["status"]]
    assert (error.status, error.code, error.message) == (response["status"], said["code"], said["message"])
    assert error.details == said.get("details", {})
    headers = response["headers"]
    assert error.trace_id == headers["x-request-id"]
    assert error.retry_after == (float(headers["retry-after"]) if "retry-after" in headers else None)
    assert error.should_retry == ({"true": True, "false": False}.get(headers.get("x-should-retry", "")))
