"""Streamed chats: events, what they add up to, and the two ways to read them."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from ._errors import ProxyError, error_in_body, parsed
from ._retry import RetryNotice


@dataclass(frozen=True)
class Callbacks:
    """What to call while a chat runs. An exception in one of them ends the chat."""

    on_token: Callable[[str], object] | None = None
    on_reasoning: Callable[[str], object] | None = None
    on_usage: Callable[[Mapping[str, Any]], object] | None = None
    #: Gets the text of X-Quota-Warning, such as `85% of requests per month used`.
    on_quota_warning: Callable[[str], object] | None = None
    on_retry: Callable[[RetryNotice], object] | None = None


@dataclass(frozen=True)
class ChatResult:
    """A whole answer, or what had come of it."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None


class StreamBrokenError(ProxyError):
    """The answer ended before it was complete: what had come is in `partial`. It isn't asked for again."""

    def __init__(self, partial: ChatResult, error: ProxyError | None = None) -> None:
        super().__init__(
            "The stream ended before the answer was complete." if error is None else error.message,
            code="stream_broken" if error is None else error.code,
            type=None if error is None else error.type,
            trace_id=None if error is None else error.trace_id,
            details=None if error is None else error.details,
        )
        self.partial = partial


class EventParser:
    """Cuts bytes into the data of events, without comments and empty events."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        # Pieces of a line that hasn't ended: joined once, so that a line in many pieces costs no more than its length.
        self._pieces: list[str] = []
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that end in this piece."""
        events: list[str] = []
        *lines, rest = self._decode(piece).split("\n")
        for text in lines:
            line = "".join([*self._pieces, text])
            self._pieces = []
            line = line[:-1] if line.endswith("\r") else line
            if line.startswith("data:"):
                self._data.append(line[6:] if line.startswith("data: ") else line[5:])
            if line == "" and self._data:
                event = "\n".join(self._data)
                self._data = []
                if event:
                    events.append(event)
        self._pieces.append(rest)
        return events


@dataclass
class Tally:
    """Adds up an answer and calls back."""

    callbacks: Callbacks
    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Takes one chunk in."""
        choices = chunk.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        self.finish_reason = choices[0].get("finish_reason") or self.finish_reason
        if reasoning := delta.get("reasoning_content"):
            self.reasonings.append(reasoning)
            _call(self.callbacks.on_reasoning, reasoning)
        if text := delta.get("content"):
            self.texts.append(text)
            _call(self.callbacks.on_token, text)
        if usage := chunk.get("usage"):
            self.usage = usage
            _call(self.callbacks.on_usage, usage)

    def chunk_of(self, data: str) -> Mapping[str, Any] | None:
        """The chunk in an event, taken in; None at the end of the answer. Raises StreamBrokenError."""
        if data == "[DONE]":
            return None
        event = parsed(data)
        error = error_in_body(event)
        if error is not None or not isinstance(event, dict):
            raise StreamBrokenError(self.result(), error)
        self.add(event)
        return event

    def result(self) -> ChatResult:
        """What has come so far."""
        return ChatResult("".join(self.texts), "".join(self.reasonings), self.finish_reason, self.usage)


def _call(callback: Callable[[Any], object] | None, value: Any) -> None:
    if callback is not None:
        callback(value)


class ChatStream:
    """The chunks of an answer as they come. `close()`, the end of a `with`, or leaving it ends the request."""

    def __init__(self, chunks: Generator[Mapping[str, Any], None, None], tally: Tally) -> None:
        self._chunks = chunks
        self._tally = tally

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self._chunks

    def result(self) -> ChatResult:
        """Reads to the end."""
        for _ in self._chunks:
            pass
        return self._tally.result()

    @property
    def partial(self) -> ChatResult:
        """What has come so far."""
        return self._tally.result()

    def close(self) -> None:
        """Ends the request."""
        self._chunks.close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncChatStream:
    """The same for tasks."""

    def __init__(self, chunks: AsyncGenerator[Mapping[str, Any], None], tally: Tally) -> None:
        self._chunks = chunks
        self._tally = tally

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        return self._chunks

    async def result(self) -> ChatResult:
        """Reads to the end."""
        async for _ in self._chunks:
            pass
        return self._tally.result()

    @property
    def partial(self) -> ChatResult:
        """What has come so far."""
        return self._tally.result()

    async def aclose(self) -> None:
        """Ends the request."""
        await self._chunks.aclose()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
