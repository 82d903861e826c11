from __future__ import annotations

import warnings
from pathlib import Path

import httpx
import pytest
from conftest import PASSWORD, Proxy

from deepseek_proxy_client import Client, ProxyAuth, VersionMismatchWarning, __version__
from deepseek_proxy_client._version import mismatch
from deepseek_proxy_client.cli import main


class Saying(httpx.HTTPTransport):
    """A proxy that says another version."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        assert response.headers["x-proxy-version"]
        response.headers["x-proxy-version"] = self.version
        return response


def test_the_version_is_that_of_the_package() -> None:
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in project


@pytest.mark.parametrize(
    ("server", "remedy"),
    [
        ("0.0.9", "update the proxy, or install an older client."),
        ("0.1.0", None),
        ("0.1.99", None),
        ("0.1.0-rc.1+build", None),
        ("0.2.0", None),
        ("0.3.0", "update the client."),
        ("0.10.0", "update the client."),
        ("1.0.0", "update the client."),
        ("", None),
        ("1.0", None),
        ("1.0.0x", None),
        ("nginx", None),
    ],
)
def test_compares(server: str, remedy: str | None) -> None:
    said = mismatch(server)
    assert said is None if remedy is None else said is not None and said.endswith(remedy)


def test_warns_once_and_goes_on(proxy: Proxy) -> None:
    saying = httpx.Client(transport=Saying("0.3.0"))
    auth = ProxyAuth(proxy.url, "alice", PASSWORD, http_client=saying)
    with Client(auth) as client:
        with pytest.warns(VersionMismatchWarning, match=r"The proxy is 0\.3\.0"):
            client.quota()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.models()


def test_says_nothing_where_they_fit(proxy: Proxy) -> None:
    with warnings.catch_warnings(), Client(ProxyAuth(proxy.url, "alice", PASSWORD)) as client:
        warnings.simplefilter("error")
        client.quota()


def test_dsproxy_says_it_in_a_line(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSPROXY_KEY", "dsp_x")
    monkeypatch.setattr("deepseek_proxy_client._version.SERVER_VERSIONS", ("0.0.1", "0.0.2"))
    assert main(["quota", "--url", proxy.url]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("dsproxy: The proxy is 0.2.0")
