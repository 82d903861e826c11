"""ProxyAuth: the authentication of httpx and httpx2 clients, and so of the SDKs that are given one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable

import httpx

from ._errors import ProxyError, error_of_answer
from ._signing import sign_request
from ._stores import TokenStore
from ._tokens import TokenSource
from ._version import VersionCheck

if TYPE_CHECKING:

    class _AuthBase(httpx.Auth):
        pass

else:
    # Clients of each library accept only their own Auth.
    try:
        import httpx2

        class _AuthBase(httpx.Auth, httpx2.Auth):
            pass

    except ImportError:
        _AuthBase = httpx.Auth

# Codes of a 401 after which another access token may help. Nothing has been sent to a model then.
_RENEWABLE = frozenset({"token_expired", "invalid_token"})
# Ends of the base URLs that SDKs take.
_API_ROOTS = frozenset({"v1", "beta", "anthropic"})


class ProxyAuth(_AuthBase):
    """Logs in, refreshes before the access token expires, signs if asked to, and repeats a request once whose access
    token was refused. One object may serve any number of threads, tasks and clients.

    A refused login is the answer to the request, so that SDKs raise their own error for it. Requests to other servers
    raise ValueError.

    :param base_url: the proxy's root; a `/v1` or `/anthropic` at its end is left out
    :param otp: asked for a code where the user has a second factor, at each login; called in a thread of its own
    :param api_key: an API key (`dsp_…`) in place of a login
    :param signing_secret: the secret (`dss_…`) of an API key that signs its requests
    :param store: where the tokens of a session are kept; by default in memory
    :param http_client: what logs in; by default an httpx client of its own
    """

    def __init__(
        self,
        base_url: str,
        username: str | None = None,
        password: str | None = None,
        *,
        otp: Callable[[], str] | None = None,
        api_key: str | None = None,
        signing_secret: str | None = None,
        store: TokenStore | None = None,
        http_client: httpx.Client | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if api_key is None and store is None and (username is None or password is None):
            raise ValueError("The proxy needs username and password, an api_key, or a store with a session's tokens.")
        if signing_secret is not None and api_key is None:
            raise ValueError("Only requests of an api_key are signed.")
        self.base_url = root_of(base_url)
        self._api_key = api_key
        self._signing_secret = signing_secret
        self._version = VersionCheck()
        self._tokens: TokenSource | None = None
        if api_key is None:
            self._tokens = TokenSource(
                self.base_url,
                username=username,
                password=password,
                otp=otp,
                store=store,
                now=now,
                http_client=http_client,
                version=self._version,
            )

    def logout(self) -> None:
        """Ends the session at the proxy, and forgets it here."""
        if self._tokens is not None:
            self._tokens.end()

    def login(self) -> None:
        """Logs in now, rather than with the first request. Raises ProxyError."""
        if self._tokens is not None:
            self._tokens.get().result()

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """The flow of synchronous clients of either library."""
        self._check(request)
        # A body that has been read can be signed, and sent a second time.
        request.read()
        if self._tokens is None:
            self._put(request, self._api_key or "")
            response = yield request
            self._version.look(response.headers)
            return
        try:
            token = self._tokens.get().result()
            self._put(request, token)
            response = yield request
            self._version.look(response.headers)
            if response.status_code != 401:
                return
            refusal = error_of_answer(401, response.headers, response.read())
            if refusal.code not in _RENEWABLE:
                return
            self._put(request, self._tokens.get(refused=token).result())
        except ProxyError as error:
            if error.status is None:
                raise
            placeholder = yield self._placeholder(request)
            placeholder.read()
            _become(placeholder, error)
            return
        yield request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """The flow of asynchronous clients of either library."""
        self._check(request)
        await request.aread()
        if self._tokens is None:
            self._put(request, self._api_key or "")
            response = yield request
            self._version.look(response.headers)
            return
        try:
            token = await _result(self._tokens.get())
            self._put(request, token)
            response = yield request
            self._version.look(response.headers)
            if response.status_code != 401:
                return
            refusal = error_of_answer(401, response.headers, await response.aread())
            if refusal.code not in _RENEWABLE:
                return
            self._put(request, await _result(self._tokens.get(refused=token)))
        except ProxyError as error:
            if error.status is None:
                raise
            placeholder = yield self._placeholder(request)
            await placeholder.aread()
            _become(placeholder, error)
            return
        yield request

    def _check(self, request: Any) -> None:
        if not str(request.url).startswith(f"{self.base_url}/"):
            raise ValueError(f"{request.url.host} is not the proxy at {self.base_url}: it gets no credentials.")

    def _put(self, request: Any, token: str) -> None:
        # What SDKs put there is made up.
        for name in ("x-api-key", "api-key"):
            if name in request.headers:
                del request.headers[name]
        request.headers["Authorization"] = f"Bearer {token}"
        if self._signing_secret is not None:
            target = request.url.raw_path.decode("ascii")
            request.headers.update(sign_request(self._signing_secret, request.method, target, request.content))

    def _placeholder(self, request: Any) -> Any:
        """A request that costs nothing: a flow can't give an answer without one."""
        return type(request)("GET", f"{self.base_url}/livez")


async def _result(future: Future[str]) -> str:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio
        import anyio.to_thread

        return await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)
    return await asyncio.wrap_future(future)


def _become(response: Any, error: ProxyError) -> None:
    """Turns an answer into the one that refused the login."""
    library = sys.modules[type(response).__module__.partition(".")[0]]
    dropped = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(name, value) for name, value in error.headers.items() if name.lower() not in dropped]
    refusal = library.Response(error.status, headers=headers, content=error.body, request=response.request)
    response.__dict__.update(refusal.__dict__)


def root_of(base_url: str) -> str:
    """The proxy's root, without a slash at the end."""
    try:
        # Leaves out a port that is the default.
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url must be like https://proxy.example, not {base_url!r}.")
    steps = [step for step in url.path.split("/") if step]
    while steps and steps[-1] in _API_ROOTS:
        steps.pop()
    return "/".join([f"{url.scheme}://{url.netloc.decode('ascii')}", *steps])
