"""Meters clients of OpenAI's and Anthropic's kind, which the same generator makes.

Every call of theirs goes through `client.request`, retries and all; what it has made of an
answer it gives to `options.post_parser`. A metered client is a copy whose `request` watches.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, TypeVar

from zaaz_client.adapters.calls import AnyCall
from zaaz_client.adapters.readers import Reader

RAW_HEADER: Final = "X-Stainless-Raw-Response"
"""Tells `request` to hand the HTTP response out: "stream" before its body was read."""

_Client = TypeVar("_Client")
ReaderOf = Callable[[Any, bool], Reader | None]
"""Makes the reader for a request, of its options and whether it streams; None to not meter it.

It may change the options.
"""


class AnyWatchedStream:
    """Beside the vendor's class of streams: its events are watched, and its close too."""

    response: Any
    _inner: Any
    _call: Any
    _events: Any

    def watch(self, inner: Any, call: Any) -> None:
        """Take the place of `inner`. `call`: the CallMeter for it."""
        self.response = inner.response
        self._inner = inner
        self._call = call
        self._events = call.events(inner, inner.close)


class AnyMeteredRequests(ABC):
    """Puts itself in the way of a client's requests.

    `stream_type`: the vendor's class of streams; `watched`: that and a WatchedStream.
    """

    def __init__(
        self, reader_of: ReaderOf, stream_type: type, watched: type[AnyWatchedStream]
    ) -> None:
        self._reader_of = reader_of
        self._stream_type = stream_type
        self._watched = watched

    def of(self, client: _Client) -> _Client:
        """A copy of the client, of its own class and with its connections, that is metered.

        So are the copies that it makes.
        """
        return self._meter_copies(client.copy)()  # type: ignore[attr-defined,no-any-return]

    def _meter_copies(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def copy(*arguments: Any, **options: Any) -> Any:
            copied = make(*arguments, **options)
            copies = self._meter_copies(copied.copy)
            request = self._meter_requests(copied.request)
            vars(copied).update(request=request, copy=copies, with_options=copies)
            return copied

        return copy

    @abstractmethod
    def _meter_requests(self, send: Callable[..., Any]) -> Callable[..., Any]:
        """The client's `request`, watched."""

    def _reader(self, options: Any, stream: bool) -> Reader | None:
        """None for a request that is not metered. TypeError for one that cannot be."""
        reader = self._reader_of(options, stream)
        if reader is not None and raw_mode(options) == "stream":
            raise TypeError("with_streaming_response hands out bytes, which nobody can meter")
        return reader

    def _watching(self, call: AnyCall, then: Any) -> Callable[[Any], Any]:
        def post_parser(answer: Any) -> Any:
            if isinstance(answer, self._stream_type):
                watched = self._watched.__new__(self._watched)
                watched.watch(answer, call)
                answer = watched
            else:
                call.answer(answer)
            return then(answer) if callable(then) else answer

        return post_parser


def raw_mode(options: Any) -> str:
    """What the caller wants: "true", or "stream", or nothing of the kind."""
    headers = options.headers
    return str(headers.get(RAW_HEADER, "")) if hasattr(headers, "get") else ""
