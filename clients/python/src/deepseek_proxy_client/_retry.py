"""When a request is repeated, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

from ._errors import ConnectionError, ProxyError

# What an error event ahead of all data can say; it stands for a 429 or 503 that came after the status was sent.
_REPEATABLE_EVENTS = frozenset(
    {
        *("rate_limited", "concurrency_exceeded", "upstream_rate_limited"),
        *("upstream_unavailable", "upstream_overloaded", "proxy_overloaded", "shutting_down"),
    }
)


@dataclass(frozen=True)
class RetryNotice:
    """A try that failed and is about to be repeated."""

    error: ProxyError
    #: 1 for the first repeat.
    retry: int
    #: Seconds.
    wait: float


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try again."""

    #: Tries after the first one.
    max_retries: int = 2
    #: The longest wait that is accepted, in s. What the proxy asks for beyond it is left to the caller.
    max_wait: float = 60.0

    def next(self, error: ProxyError, retry: int) -> RetryNotice:
        """What to do after a failure. Raises the error where the request must not be repeated."""
        if retry > self.max_retries or not is_safe_to_repeat(error):
            raise error
        wait = backoff(retry) if error.retry_after is None else error.retry_after
        if wait > self.max_wait:
            raise error
        return RetryNotice(error, retry, wait)


def is_safe_to_repeat(error: ProxyError) -> bool:
    """Whether a failed request can be sent again without being charged twice: the proxy says so, it has refused the
    request before it was sent to a model (429, 503), or no server was reached. Only where no event has come."""
    if error.should_retry is not None:
        return error.should_retry
    return error.status in (429, 503) or error.code == "connection_failed" or error.code in _REPEATABLE_EVENTS


def backoff(retry: int) -> float:
    """0.5 s, 1 s, 2 s … 8 s, less up to a quarter, so that many clients don't come back at once."""
    return min(8.0, 0.5 * 2.0 ** (retry - 1)) * (1 - random.random() / 4)


def connection_error(cause: Exception) -> ConnectionError:
    """What a transport error stands for. Only where there was no connection is it known that nothing was sent."""
    if isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return ConnectionError(f"The proxy can't be reached: {cause}", code="connection_failed")
    return ConnectionError(f"The connection broke before the answer: {cause!r}", code="connection_lost")
