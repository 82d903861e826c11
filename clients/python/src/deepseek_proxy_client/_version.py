"""The version of this package, and those of the proxy that it was made for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

__version__ = "0.2.0"
#: From the first on, below the second.
SERVER_VERSIONS = ("0.1.0", "0.3.0")

# What follows the numbers, such as `-rc.1`, is left out.
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+]|$)")


class VersionMismatchWarning(UserWarning):
    """The proxy is of a version that this package was not made for. Most calls may work all the same."""


class VersionCheck:
    """Warns once."""

    def __init__(self) -> None:
        self._is_settled = False

    def look(self, headers: Mapping[str, str]) -> None:
        """Compares what an answer says in `x-proxy-version`, if it says anything."""
        version = None if self._is_settled else headers.get("x-proxy-version")
        if version is None:
            return
        self._is_settled = True
        message = mismatch(version)
        if message is not None:
            warnings.warn(message, VersionMismatchWarning, stacklevel=2)


def mismatch(server: str) -> str | None:
    """What is wrong with a version of the proxy, as a sentence; None if it fits, or is no version."""
    numbers = _numbers(server)
    if numbers is None:
        return None
    first, below = SERVER_VERSIONS
    is_old = numbers < (_numbers(first) or ())
    if not is_old and numbers < (_numbers(below) or ()):
        return None
    remedy = "update the proxy, or install an older client" if is_old else "update the client"
    made_for = f"deepseek-proxy-client {__version__} was made for proxies from {first} on, below {below}"
    return f"The proxy is {server}, and {made_for}: {remedy}."


def _numbers(version: str) -> tuple[int, ...] | None:
    found = _VERSION.match(version)
    return None if found is None else tuple(int(number) for number in found.groups())
