"""Where the tokens of a session are kept."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Tokens:
    """The tokens of a session. Times are s since the epoch."""

    access_token: str
    refresh_token: str
    expires_at: float
    refresh_expires_at: float
    #: How long the access token lived when it was issued, in s.
    lifetime: float


class TokenStore(Protocol):
    """Keeps the tokens of a session."""

    def load(self) -> Tokens | None: ...

    def save(self, tokens: Tokens | None) -> None:
        """:param tokens: None: the session is over"""

    def lock(self) -> AbstractContextManager[Any]:
        """Held while tokens are exchanged: a refresh token works once, for one process."""
        ...


class MemoryStore:
    """Forgets with the process."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens
        self._lock = threading.Lock()

    def load(self) -> Tokens | None:
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def lock(self) -> AbstractContextManager[Any]:
        return self._lock


class FileStore:
    """A file that only its owner can read (0600), replaced as a whole. Several processes may share it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> Tokens | None:
        try:
            return _tokens_of(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return None

    def save(self, tokens: Tokens | None) -> None:
        if tokens is None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(tokens), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class KeyringStore:
    """The keyring of the operating system. Needs the package `keyring`. Threads of one process may share it."""

    def __init__(self, username: str, service: str = "deepseek-proxy") -> None:
        import keyring

        self._keyring = keyring
        self._service = service
        self._username = username
        self._lock = threading.Lock()

    def load(self) -> Tokens | None:
        text = self._keyring.get_password(self._service, self._username)
        return None if text is None else _tokens_of(text)

    def save(self, tokens: Tokens | None) -> None:
        if tokens is not None:
            self._keyring.set_password(self._service, self._username, json.dumps(asdict(tokens)))
        elif self._keyring.get_password(self._service, self._username) is not None:
            self._keyring.delete_password(self._service, self._username)

    def lock(self) -> AbstractContextManager[Any]:
        return self._lock


def _tokens_of(text: str) -> Tokens | None:
    """None for what this package has not written: then the user logs in again."""
    try:
        return Tokens(**json.loads(text))
    except (ValueError, TypeError):
        return None
