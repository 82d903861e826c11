"""Log in, refresh, sign and retry for deepseek-proxy: below the OpenAI and Anthropic SDKs, or alone."""

from ._auth import ProxyAuth
from ._chat import AsyncChatStream, Callbacks, ChatResult, ChatStream, StreamBrokenError
from ._client import AsyncClient, Client
from ._errors import (
    AuthenticationError,
    ConnectionError,
    ForbiddenError,
    InvalidRequestError,
    ProxyError,
    QuotaExceededError,
    RateLimitError,
    UnavailableError,
)
from ._retry import RetryNotice, RetryPolicy
from ._signing import sign_request
from ._stores import FileStore, KeyringStore, MemoryStore, Tokens, TokenStore
from ._version import SERVER_VERSIONS, VersionMismatchWarning, __version__

__all__ = [
    "SERVER_VERSIONS",
    "AsyncChatStream",
    "AsyncClient",
    "AuthenticationError",
    "Callbacks",
    "ChatResult",
    "ChatStream",
    "Client",
    "ConnectionError",
    "FileStore",
    "ForbiddenError",
    "InvalidRequestError",
    "KeyringStore",
    "MemoryStore",
    "ProxyAuth",
    "ProxyError",
    "QuotaExceededError",
    "RateLimitError",
    "RetryNotice",
    "RetryPolicy",
    "StreamBrokenError",
    "TokenStore",
    "Tokens",
    "UnavailableError",
    "VersionMismatchWarning",
    "__version__",
    "sign_request",
]
