"""Clients of the proxy's own routes, for threads and for tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Generator, Mapping, Sequence
from typing import Any, Callable, Optional
from urllib.parse import quote

import httpx

from ._auth import ProxyAuth
from ._chat import AsyncChatStream, Callbacks, ChatStream, EventParser, StreamBrokenError, Tally
from ._errors import ProxyError, error_in_body, error_of_answer, json_of_answer, parsed
from ._retry import RetryNotice, RetryPolicy, connection_error

Json = dict[str, Any]
Body = Optional[Mapping[str, Any]]
Query = Optional[Mapping[str, Any]]
_TIMEOUT = httpx.Timeout(30, read=660)
_CHAT = "/v1/chat/completions"


class _Routes:
    """The routes, once for both clients: `_call` returns the answer in one and an awaitable of it in the other."""

    def _call(self, method: str, path: str, body: Body = None, query: Query = None) -> Any:
        raise NotImplementedError

    def quota(self) -> Any:
        """Limits, what is used of them, and when they reset."""
        return self._call("GET", "/auth/quota")

    def usage(self, *, from_: str | None = None, to: str | None = None, by: str = "day") -> Any:
        """What was used, by `day`, `model`, `key` or `both`. Days are like `2026-11-26`."""
        return self._call("GET", "/auth/usage", query={"from": from_, "to": to, "by": by})

    def balance(self) -> Any:
        """The limits on cost as DeepSeek shows a balance."""
        return self._call("GET", "/user/balance")

    def models(self) -> Any:
        """What can be asked: `{"data": [...]}`."""
        return self._call("GET", "/v1/models")

    def keys(self) -> Any:
        """The user's API keys: `{"keys": [...]}`."""
        return self._call("GET", "/auth/keys")

    def create_key(self, name: str, **settings: Any) -> Any:
        """Makes an API key. `key`, and `signing_secret` if signatures are required, are shown only here."""
        return self._call("POST", "/auth/keys", {"name": name, **settings})

    def delete_key(self, key_id: str) -> Any:
        """Deletes an API key."""
        return self._call("DELETE", f"/auth/keys/{quote(key_id, safe='')}")

    def admin(self, method: str, path: str, body: Body = None, query: Query = None) -> Any:
        """Any admin route: `admin("GET", "users", query={"tier": "basic"})`, `admin("POST", "users/bob/unlock")`."""
        return self._call(method, f"/admin/{path.lstrip('/')}", body, query)


class Client(_Routes):
    """A client for threads. All calls raise ProxyError. Chats are read as they come: see `chat`."""

    def __init__(
        self,
        auth: ProxyAuth,
        *,
        retry: RetryPolicy | None = None,
        on_retry: Callable[[RetryNotice], object] | None = None,
        http_client: httpx.Client | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.auth = auth
        self._retry = retry or RetryPolicy()
        self._on_retry = on_retry
        self._http = http_client or httpx.Client(timeout=_TIMEOUT)
        self._sleep = sleep

    def chat(
        self, model: str, messages: Sequence[Mapping[str, Any]], callbacks: Callbacks | None = None, **fields: Any
    ) -> ChatStream:
        """A streamed chat. Nothing is sent before it is read."""
        tally = Tally(callbacks or Callbacks())
        return ChatStream(self._chunks({"model": model, "messages": messages, **fields, "stream": True}, tally), tally)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: Body = None, query: Query = None) -> Any:
        def attempt() -> Any:
            try:
                response = self._http.request(
                    method, self.auth.base_url + path, json=body, params=_present(query), auth=self.auth
                )
            except httpx.TransportError as error:
                raise connection_error(error) from error
            return _answer(response)

        return self._with_retries(attempt, self._on_retry)

    def _with_retries(self, attempt: Callable[[], Any], on_retry: Callable[[RetryNotice], object] | None) -> Any:
        retry = 0
        while True:
            try:
                return attempt()
            except StreamBrokenError:
                raise
            except Exception as error:
                retry += 1
                notice = _next(self._retry, error, retry)
                if on_retry is not None:
                    on_retry(notice)
                self._sleep(notice.wait)

    def _chunks(self, body: Json, tally: Tally) -> Generator[Mapping[str, Any], None, None]:
        # The first event belongs to the try: before it nothing has been charged.
        response, events, first = self._with_retries(lambda: self._open(body, tally), tally.callbacks.on_retry)
        try:
            chunk = tally.chunk_of(first)
            while chunk is not None:
                yield chunk
                data = next(events, None)
                if data is None:
                    raise StreamBrokenError(tally.result())
                chunk = tally.chunk_of(data)
        finally:
            response.close()

    def _open(self, body: Json, tally: Tally) -> tuple[httpx.Response, Generator[str, None, None], str]:
        request = self._http.build_request("POST", self.auth.base_url + _CHAT, json=body, headers=_STREAM)
        try:
            response = self._http.send(request, auth=self.auth, stream=True)
        except httpx.TransportError as error:
            raise connection_error(error) from error
        try:
            if response.status_code >= 300:
                response.read()
                _answer(response)
            _warn(response, tally)
            events = _events(response, tally)
            first = next(events, None)
            _check_first(first, tally)
        except BaseException as error:
            response.close()
            if isinstance(error, httpx.TransportError):
                raise connection_error(error) from error
            raise
        return response, events, first or ""


class AsyncClient(_Routes):
    """The same for tasks: calls are awaited, and chats read with `async for`."""

    def __init__(
        self,
        auth: ProxyAuth,
        *,
        retry: RetryPolicy | None = None,
        on_retry: Callable[[RetryNotice], object] | None = None,
        http_client: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.auth = auth
        self._retry = retry or RetryPolicy()
        self._on_retry = on_retry
        self._http = http_client or httpx.AsyncClient(timeout=_TIMEOUT)
        self._sleep = sleep

    def chat(
        self, model: str, messages: Sequence[Mapping[str, Any]], callbacks: Callbacks | None = None, **fields: Any
    ) -> AsyncChatStream:
        """A streamed chat. Nothing is sent before it is read."""
        tally = Tally(callbacks or Callbacks())
        body = {"model": model, "messages": messages, **fields, "stream": True}
        return AsyncChatStream(self._chunks(body, tally), tally)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _call(self, method: str, path: str, body: Body = None, query: Query = None) -> Any:
        async def attempt() -> Any:
            try:
                response = await self._http.request(
                    method, self.auth.base_url + path, json=body, params=_present(query), auth=self.auth
                )
            except httpx.TransportError as error:
                raise connection_error(error) from error
            return _answer(response)

        return await self._with_retries(attempt, self._on_retry)

    async def _with_retries(
        self, attempt: Callable[[], Awaitable[Any]], on_retry: Callable[[RetryNotice], object] | None
    ) -> Any:
        retry = 0
        while True:
            try:
                return await attempt()
            except StreamBrokenError:
                raise
            except Exception as error:
                retry += 1
                notice = _next(self._retry, error, retry)
                if on_retry is not None:
                    on_retry(notice)
                await self._sleep(notice.wait)

    async def _chunks(self, body: Json, tally: Tally) -> AsyncGenerator[Mapping[str, Any], None]:
        async def attempt() -> Any:
            return await self._open(body, tally)

        response, events, first = await self._with_retries(attempt, tally.callbacks.on_retry)
        try:
            chunk = tally.chunk_of(first)
            while chunk is not None:
                yield chunk
                data = await self._next_event(events, tally)
                if data is None:
                    raise StreamBrokenError(tally.result())
                chunk = tally.chunk_of(data)
        finally:
            await response.aclose()

    async def _next_event(self, events: AsyncGenerator[str, None], tally: Tally) -> str | None:
        try:
            return await events.__anext__()
        except StopAsyncIteration:
            return None
        except httpx.TransportError as error:
            raise StreamBrokenError(tally.result()) from error

    async def _open(self, body: Json, tally: Tally) -> tuple[httpx.Response, AsyncGenerator[str, None], str]:
        request = self._http.build_request("POST", self.auth.base_url + _CHAT, json=body, headers=_STREAM)
        try:
            response = await self._http.send(request, auth=self.auth, stream=True)
        except httpx.TransportError as error:
            raise connection_error(error) from error
        try:
            if response.status_code >= 300:
                await response.aread()
                _answer(response)
            _warn(response, tally)
            events = _async_events(response)
            first = await self._next_event(events, tally)
            _check_first(first, tally)
        except BaseException as error:
            await response.aclose()
            if isinstance(error, httpx.TransportError):
                raise connection_error(error) from error
            raise
        return response, events, first or ""


_STREAM = {"accept": "text/event-stream"}


def _events(response: httpx.Response, tally: Tally) -> Generator[str, None, None]:
    parser = EventParser()
    try:
        for piece in response.iter_bytes():
            yield from parser.feed(piece)
    except httpx.TransportError as error:
        raise StreamBrokenError(tally.result()) from error


async def _async_events(response: httpx.Response) -> AsyncGenerator[str, None]:
    parser = EventParser()
    async for piece in response.aiter_bytes():
        for event in parser.feed(piece):
            yield event


def _check_first(first: str | None, tally: Tally) -> None:
    if first is None:
        raise StreamBrokenError(tally.result())
    error = error_in_body(parsed(first))
    if error is not None:
        raise error


def _warn(response: httpx.Response, tally: Tally) -> None:
    warning = response.headers.get("x-quota-warning")
    if warning is not None and tally.callbacks.on_quota_warning is not None:
        tally.callbacks.on_quota_warning(warning)


def _answer(response: httpx.Response) -> Any:
    if response.status_code >= 300:
        raise error_of_answer(response.status_code, response.headers, response.content)
    return json_of_answer(response.status_code, response.content)


def _next(policy: RetryPolicy, error: Exception, retry: int) -> RetryNotice:
    if not isinstance(error, ProxyError):
        raise error
    return policy.next(error, retry)


def _present(query: Query) -> dict[str, str | int] | None:
    present = {name: value for name, value in (query or {}).items() if value is not None}
    return present or None
