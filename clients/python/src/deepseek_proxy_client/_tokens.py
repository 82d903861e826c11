"""Access tokens: one login and one refresh, however many threads and tasks wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Callable

import httpx

from ._errors import AuthenticationError, ConnectionError, ProxyError, error_of_answer, json_of_answer
from ._stores import MemoryStore, Tokens, TokenStore
from ._version import VersionCheck

# A token is renewed when this much of its life is left (s): a minute, or a fifth of a short life.
_EARLY = 60.0
# The proxy locks an account after repeated wrong passwords, so a refused one isn't sent again for so long (s).
_REFUSAL = 60.0


class TokenSource:
    """Hands out an access token that is valid.

    Tokens are exchanged in a thread of their own: neither a task that is cancelled nor an event loop that ends can lose
    the successor of a refresh token, which works once.
    """

    def __init__(
        self,
        base_url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        otp: Callable[[], str] | None = None,
        store: TokenStore | None = None,
        now: Callable[[], float] = time.time,
        http_client: httpx.Client | None = None,
        version: VersionCheck | None = None,
    ) -> None:
        self._base_url = base_url
        self._username = username
        self._password = password
        self._otp = otp
        self._store: TokenStore = MemoryStore() if store is None else store
        self._now = now
        self._http = http_client
        self._version = version or VersionCheck()
        self._lock = threading.Lock()
        self._tokens: Tokens | None = None
        self._running: Future[str] | None = None
        self._refusal: tuple[ProxyError, float] | None = None

    def get(self, refused: str | None = None) -> Future[str]:
        """An access token that doesn't expire soon. The future fails with ProxyError.

        :param refused: a token that the proxy has refused: another one is returned
        """
        with self._lock:
            if self._tokens is not None and self._tokens.access_token != refused and self._is_fresh(self._tokens):
                return _done(self._tokens.access_token)
            if self._running is not None:
                return self._running
            future: Future[str] = Future()
            # From now on it can't be cancelled, whoever stops waiting for it.
            future.set_running_or_notify_cancel()
            self._running = future
        threading.Thread(target=self._run, args=(future, refused), name="proxy-login", daemon=True).start()
        return future

    def end(self) -> None:
        """Ends the session at the proxy, and forgets it here."""
        with self._store.lock():
            tokens = self._store.load() or self._tokens
            self._forget()
        if tokens is not None:
            self._send("/auth/logout", {"refresh_token": tokens.refresh_token})

    def _run(self, future: Future[str], refused: str | None) -> None:
        try:
            with self._store.lock():
                token = self._exchange(refused)
        except BaseException as error:
            self._running = None
            future.set_exception(error)
        else:
            self._running = None
            future.set_result(token)

    def _exchange(self, refused: str | None) -> str:
        # Another process may have renewed them.
        tokens = self._tokens = self._store.load() or self._tokens
        if tokens is not None:
            usable = tokens.access_token != refused
            if usable and self._is_fresh(tokens):
                return tokens.access_token
            if tokens.refresh_expires_at > self._now():
                try:
                    return self._keep(self._send("/auth/refresh", {"refresh_token": tokens.refresh_token}))
                except ProxyError as error:
                    if not _is_over(error):
                        # The proxy may be away for a moment while the token is still valid.
                        if usable and tokens.expires_at > self._now():
                            return tokens.access_token
                        raise
                    self._forget()
                    if self._password is None:
                        raise
        return self._log_in()

    def _log_in(self) -> str:
        if self._username is None or self._password is None:
            self._forget()
            raise AuthenticationError("The session is over. Log in again.", code="login_required")
        if self._refusal is not None and self._refusal[1] > self._now():
            raise self._refusal[0]
        body = {"username": self._username, "password": self._password}
        try:
            try:
                answer = self._send("/auth/login", body)
            except AuthenticationError as error:
                if error.code != "otp_required" or self._otp is None:
                    raise
                answer = self._send("/auth/login", {**body, "otp": self._otp()})
            return self._keep(answer)
        except ProxyError as error:
            if _is_over(error):
                self._refusal = (error, self._now() + _REFUSAL)
            raise

    def _send(self, path: str, body: Mapping[str, str]) -> Any:
        try:
            if self._http is not None:
                response = self._http.post(f"{self._base_url}{path}", json=body)
            else:
                response = httpx.post(f"{self._base_url}{path}", json=body, timeout=30)
        except httpx.TransportError as error:
            message = f"{self._base_url} can't be reached: {error}"
            raise ConnectionError(message, code="connection_failed") from error
        self._version.look(response.headers)
        if response.status_code >= 300:
            raise error_of_answer(response.status_code, response.headers, response.content)
        return json_of_answer(response.status_code, response.content)

    def _keep(self, answer: Any) -> str:
        tokens = tokens_of(answer, self._now())
        self._refusal = None
        self._store.save(tokens)
        self._tokens = tokens
        return tokens.access_token

    def _forget(self) -> None:
        self._tokens = None
        self._store.save(None)

    def _is_fresh(self, tokens: Tokens) -> bool:
        return tokens.expires_at - self._now() > min(_EARLY, tokens.lifetime / 5)


def tokens_of(answer: Any, now: float) -> Tokens:
    """Reads an answer of /auth/login, /auth/refresh or /auth/password."""
    try:
        lifetime = float(answer["expires_in"])
        return Tokens(
            access_token=str(answer["access_token"]),
            refresh_token=str(answer["refresh_token"]),
            expires_at=now + lifetime,
            refresh_expires_at=now + float(answer["refresh_expires_in"]),
            lifetime=lifetime,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConnectionError("The server at this address is no deepseek-proxy.", code="bad_answer") from error


def _is_over(error: ProxyError) -> bool:
    """Whether the proxy refused the credentials themselves, so that trying the same again is of no use."""
    return error.status in (400, 401, 403)


def _done(token: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(token)
    return future
