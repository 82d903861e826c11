"""The errors of this package. Their `code` tells programs what happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class ProxyError(Exception):
    """The base of all errors. `code` is the proxy's, such as `quota_exceeded`."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        type: str | None = None,
        param: str | None = None,
        trace_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        #: HTTP status; None for an error event in a stream, or where there was no answer.
        self.status = status
        self.type = type
        #: The invalid field, in dot notation.
        self.param = param
        #: Names the request in the proxy's logs.
        self.trace_id = trace_id
        #: Facts for programs, such as `{metric, used, limit, reset_at}`.
        self.details: Mapping[str, Any] = details or {}
        #: Seconds.
        self.retry_after = retry_after
        #: What the proxy said in `x-should-retry`; None if nothing.
        self.should_retry = should_retry
        #: The answer as it came.
        self.headers: Mapping[str, str] = headers or {}
        self.body = body


class AuthenticationError(ProxyError):
    """401: the credentials are wrong, or the session is over."""


class ForbiddenError(ProxyError):
    """403: the account may not do that."""


class QuotaExceededError(ProxyError):
    """A limit is used up: `details` say which, and when it resets."""


class RateLimitError(ProxyError):
    """429: too many requests, at once or in a time."""


class InvalidRequestError(ProxyError):
    """Other 4xx: the request is wrong."""


class UnavailableError(ProxyError):
    """5xx: the proxy or the provider behind it failed."""


class ConnectionError(ProxyError):
    """No answer came: code `connection_failed`, which reached no server, or `connection_lost`, which may have."""


_QUOTA = frozenset({"quota_exceeded", "quota_exceeded_midstream"})
_RATE = frozenset({"rate_limited", "concurrency_exceeded", "login_busy", "login_blocked", "upstream_rate_limited"})
_BY_TYPE = {
    "authentication_error": AuthenticationError,
    "permission_error": ForbiddenError,
    "invalid_request_error": InvalidRequestError,
}


def _class_of(code: str, status: int | None, type_: str | None) -> type[ProxyError]:
    if code in _QUOTA or status == 402:
        return QuotaExceededError
    if code in _RATE or status == 429:
        return RateLimitError
    if status is None:
        return _BY_TYPE.get(type_ or "", UnavailableError)
    if status == 401:
        return AuthenticationError
    if status == 403:
        return ForbiddenError
    return InvalidRequestError if status < 500 else UnavailableError


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
    """The error that an answer with an error status stands for."""
    fields = _fields(parsed(body))
    code = fields.pop("code") or f"http_{status}"
    message = fields.pop("message") or f"The proxy answered with status {status}."
    fields["trace_id"] = fields["trace_id"] or headers.get("x-request-id")
    should_retry = headers.get("x-should-retry")
    return _class_of(code, status, fields["type"])(
        message,
        code=code,
        status=status,
        retry_after=_seconds(headers.get("retry-after")),
        should_retry=None if should_retry is None else should_retry == "true",
        headers=headers,
        body=body,
        **fields,
    )


def error_in_body(body: Any) -> ProxyError | None:
    """The error that an event of a stream, or a JSON body, holds."""
    if not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        return None
    fields = _fields(body)
    code = fields.pop("code") or fields["type"] or "unknown_error"
    message = fields.pop("message") or "The answer broke off."
    return _class_of(code, None, fields["type"])(message, code=code, **fields)


def json_of_answer(status: int, content: bytes) -> Any:
    """The JSON of an answer; None where it has no body."""
    if status == 204:
        return None
    try:
        return json.loads(content)
    except ValueError as error:
        message = "The answer is no JSON, so it is not the proxy's: is the base URL right?"
        # Without the status: the answer to a login would be taken for the answer to the request that waits for it.
        raise ProxyError(message, code="not_json") from error


def parsed(text: bytes | str) -> Any:
    """The parsed JSON; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _fields(body: Any) -> dict[str, Any]:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        error = {}
    fields: dict[str, Any] = {
        name: value if isinstance(value := error.get(name), str) else None
        for name in ("code", "message", "type", "param", "trace_id")
    }
    details = error.get("details")
    fields["details"] = details if isinstance(details, dict) else None
    return fields


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None
