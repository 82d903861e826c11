"""The official SDKs, with base URL and HTTP client as the only change."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest
from conftest import PASSWORD, Proxy

from deepseek_proxy_client import ProxyAuth

MESSAGES: list[Any] = [{"role": "user", "content": "Say hello."}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}


def http_of(sdk: Any) -> Any:
    """The HTTP library that this version of an SDK is built on."""
    base = sdk.DefaultHttpxClient.__mro__
    return importlib.import_module(next(c.__module__ for c in base if c.__module__.startswith("httpx")).split(".")[0])


def test_openai(proxy: Proxy) -> None:
    openai = pytest.importorskip("openai")
    http = http_of(openai)
    auth = ProxyAuth(proxy.url, "alice", PASSWORD)
    with http.Client(auth=auth) as http_client:
        client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", http_client=http_client)
        chat = client.chat.completions
        stream = chat.create(model="sim-fast", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        whole = chat.create(model="sim-fast", messages=MESSAGES, response_format={"type": "json_object"})
        assert whole.choices[0].finish_reason == "stop"
        called = chat.create(model="sim-tools", messages=MESSAGES, tools=[WEATHER])
        assert called.choices[0].message.tool_calls[0].function.name == "get_weather"
        assert client.responses.create(model="deepseek-flash", input="Say hello.").output_text

    async def run() -> str:
        async with http.AsyncClient(auth=auth) as http_client:
            client = openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="unused", http_client=http_client)
            stream = await client.chat.completions.create(model="sim-fast", messages=MESSAGES, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert asyncio.run(run())


def test_openai_shows_a_refused_login(proxy: Proxy) -> None:
    openai = pytest.importorskip("openai")
    wrong = http_of(openai).Client(auth=ProxyAuth(proxy.url, "nobody", "wrong password"))
    with wrong as http_client:
        client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", http_client=http_client)
        with pytest.raises(openai.AuthenticationError) as raised:
            client.chat.completions.create(model="sim-fast", messages=MESSAGES)
    assert raised.value.code == "invalid_credentials"


def test_anthropic(proxy: Proxy) -> None:
    anthropic = pytest.importorskip("anthropic")
    http = http_of(anthropic)
    auth = ProxyAuth(proxy.url, "alice", PASSWORD)
    base_url = f"{proxy.url}/anthropic"
    ask: dict[str, Any] = {"model": "sim-fast", "max_tokens": 100, "messages": MESSAGES}
    with http.Client(auth=auth) as http_client:
        client = anthropic.Anthropic(base_url=base_url, api_key="unused", http_client=http_client)
        with client.messages.stream(**ask) as stream:
            assert "".join(stream.text_stream)
        assert client.messages.create(**ask).stop_reason == "end_turn"
        tools = [{"name": "get_weather", "input_schema": PARAMETERS}]
        assert client.messages.create(**{**ask, "model": "sim-tools"}, tools=tools).stop_reason == "tool_use"

    async def run() -> str:
        async with http.AsyncClient(auth=auth) as http_client:
            client = anthropic.AsyncAnthropic(base_url=base_url, api_key="unused", http_client=http_client)
            return str((await client.messages.create(**ask)).stop_reason)

    assert asyncio.run(run()) == "end_turn"


def test_langchain(proxy: Proxy) -> None:
    langchain = pytest.importorskip("langchain_openai")
    http = http_of(pytest.importorskip("openai"))
    with http.Client(auth=ProxyAuth(proxy.url, "alice", PASSWORD)) as http_client:
        settings: Any = {"base_url": f"{proxy.url}/v1", "api_key": "unused", "http_client": http_client}
        model = langchain.ChatOpenAI(model="sim-fast", **settings)
        assert model.invoke("Say hello.").content
        assert "".join(chunk.content for chunk in model.stream("Say hello."))


def test_llama_index(proxy: Proxy) -> None:
    llama_index = pytest.importorskip("llama_index.llms.openai_like")
    http = http_of(pytest.importorskip("openai"))
    with http.Client(auth=ProxyAuth(proxy.url, "alice", PASSWORD)) as http_client:
        model = llama_index.OpenAILike(
            model="sim-fast",
            api_base=f"{proxy.url}/v1",
            api_key="unused",
            is_chat_model=True,
            http_client=http_client,
        )
        assert model.complete("Say hello.").text
        assert "".join(piece.delta or "" for piece in model.stream_complete("Say hello."))
