from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from conftest import ROOT, Proxy

from deepseek_proxy_client import Client, ProxyAuth, sign_request

VECTORS = json.loads((ROOT / "docs" / "signature-vectors.json").read_text("utf-8"))["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_vectors(vector: dict[str, Any]) -> None:
    headers = sign_request(
        vector["secret"],
        vector["method"],
        vector["target"],
        vector["body"].encode(),
        timestamp=vector["timestamp"],
        nonce=vector["nonce"],
    )
    assert headers["X-Signature"] == vector["signature"]


def test_requests_of_a_signed_key(proxy: Proxy) -> None:
    with Client(ProxyAuth(proxy.url, "alice", "correct horse battery")) as owner:
        made = owner.create_key("signed", require_signature=True)
        auth = ProxyAuth(proxy.url, api_key=made["key"], signing_secret=made["signing_secret"])
        with Client(auth) as client:
            for _ in range(2):
                assert client.chat("sim-fast", [{"role": "user", "content": "你好"}]).result().finish_reason == "stop"
            assert client.usage(by="model")["rows"]
        unsigned = httpx.get(f"{proxy.url}/v1/models", auth=ProxyAuth(proxy.url, api_key=made["key"]))
        assert unsigned.json()["error"]["code"] == "signature_invalid"
        owner.delete_key(made["id"])
