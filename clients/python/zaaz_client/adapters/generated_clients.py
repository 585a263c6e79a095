"""Meters clients of OpenAI's and Anthropic's kind, which the same generator makes.

Every call of theirs goes through `client.request`, retries and all; what it has made of an
answer it gives to `options.post_parser`. A metered client is a copy whose `request` watches.
"""

import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from zaaz_client.adapters.metering import CallMeter, Meter
from zaaz_client.adapters.readers import Reader

RAW_HEADER: Final = "X-Stainless-Raw-Response"
"""Tells `request` to hand the HTTP response out: "stream" before its body was read."""

_Client = TypeVar("_Client")
ReaderOf = Callable[[Any, bool], Reader | None]
"""Makes the reader for a request, of its options and whether it streams; None to not meter it.

It may change the options.
"""


class WatchedStream:
    """Beside the vendor's class of streams: its events are watched, and its close too."""

    response: Any
    _inner: Any
    _call: CallMeter
    _events: AsyncGenerator[Any, None]

    def watch(self, inner: Any, call: CallMeter) -> None:
        """Take the place of `inner`."""
        self.response = inner.response
        self._inner = inner
        self._call = call
        self._events = call.events(inner, inner.close)

    async def __anext__(self) -> Any:
        return await anext(self._events)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._events

    async def close(self) -> None:
        """Close the response, and bill what it came to."""
        await self._call.close()
        await self._inner.close()

    async def aclose(self) -> None:
        """The same."""
        await self.close()


class MeteredRequests:
    """Puts itself in the way of a client's requests.

    `stream_type`: the vendor's class of streams; `watched`: that and WatchedStream.
    """

    def __init__(
        self, meter: Meter, reader_of: ReaderOf, stream_type: type, watched: type[WatchedStream]
    ) -> None:
        self._meter = meter
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

    def _meter_requests(self, send: Callable[..., Any]) -> Callable[..., Any]:
        async def request(cast_to: Any, options: Any, *, stream: bool = False, **more: Any) -> Any:
            reader = self._reader_of(options, stream)
            if reader is None:
                return await send(cast_to, options, stream=stream, **more)
            raw = _raw_mode(options)
            if raw == "stream":
                raise TypeError("with_streaming_response hands out bytes, which nobody can meter")
            call = self._meter.begin(reader, {**(options.json_data or {})})
            options.post_parser = self._watching(call, options.post_parser)
            try:
                answer = await send(cast_to, options, stream=stream, **more)
                if raw:
                    await _parse(answer)
            except BaseException as error:
                await call.break_off(error)
                raise
            if not stream:
                await call.finish()
            return answer

        return request

    def _watching(self, call: CallMeter, then: Any) -> Callable[[Any], Any]:
        def post_parser(answer: Any) -> Any:
            if isinstance(answer, self._stream_type):
                watched = self._watched.__new__(self._watched)
                watched.watch(answer, call)
                answer = watched
            else:
                call.answer(answer)
            return then(answer) if callable(then) else answer

        return post_parser


def _raw_mode(options: Any) -> str:
    headers = options.headers
    return str(headers.get(RAW_HEADER, "")) if hasattr(headers, "get") else ""


async def _parse(response: Any) -> None:
    """Have the body read. It is kept for the caller, who gets the same object, or error."""
    with contextlib.suppress(Exception):
        parsed = response.parse()
        if inspect.isawaitable(parsed):
            await parsed
