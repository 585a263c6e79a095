"""Meters the synchronous clients of OpenAI's and Anthropic's kind."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

from zaaz_client.adapters.blocking.metering import CallMeter, Meter
from zaaz_client.adapters.requests import (
    AnyMeteredRequests,
    AnyWatchedStream,
    ReaderOf,
    raw_mode,
)


class WatchedStream(AnyWatchedStream):
    """Beside the vendor's class of streams: its events are watched, and its close too."""

    _call: CallMeter
    _events: Generator[Any, None, None]

    def __next__(self) -> Any:
        return next(self._events)

    def __iter__(self) -> Iterator[Any]:
        return self._events

    def close(self) -> None:
        """Close the response, and bill what it came to."""
        self._call.break_off()
        self._inner.close()


class MeteredRequests(AnyMeteredRequests):
    """Puts itself in the way of a client's requests. The rest as there."""

    def __init__(
        self, meter: Meter, reader_of: ReaderOf, stream_type: type, watched: type[WatchedStream]
    ) -> None:
        super().__init__(reader_of, stream_type, watched)
        self._meter = meter

    def _meter_requests(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def request(cast_to: Any, options: Any, *, stream: bool = False, **more: Any) -> Any:
            if (reader := self._reader(options, stream)) is None:
                return send(cast_to, options, stream=stream, **more)
            call = self._meter.begin(reader, {**(options.json_data or {})})
            options.post_parser = self._watching(call, options.post_parser)
            try:
                answer = send(cast_to, options, stream=stream, **more)
                if raw_mode(options):
                    _parse(answer)
            except BaseException as error:
                call.break_off(error)
                raise
            if not stream:
                call.finish()
            return answer

        return request


def _parse(response: Any) -> None:
    """Have the body read. It is kept for the caller, who gets the same object, or error."""
    with contextlib.suppress(Exception):
        response.parse()
