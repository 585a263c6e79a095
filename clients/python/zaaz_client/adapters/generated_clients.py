"""Meters the asynchronous clients of OpenAI's and Anthropic's kind."""

import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from zaaz_client.adapters.metering import CallMeter, Meter
from zaaz_client.adapters.requests import (
    AnyMeteredRequests,
    AnyWatchedStream,
    ReaderOf,
    raw_mode,
)


class WatchedStream(AnyWatchedStream):
    """Beside the vendor's class of streams: its events are watched, and its close too."""

    _call: CallMeter
    _events: AsyncGenerator[Any, None]

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


class MeteredRequests(AnyMeteredRequests):
    """Puts itself in the way of a client's requests. The rest as there."""

    def __init__(
        self, meter: Meter, reader_of: ReaderOf, stream_type: type, watched: type[WatchedStream]
    ) -> None:
        super().__init__(reader_of, stream_type, watched)
        self._meter = meter

    def _meter_requests(self, send: Callable[..., Any]) -> Callable[..., Any]:
        async def request(cast_to: Any, options: Any, *, stream: bool = False, **more: Any) -> Any:
            if (reader := self._reader(options, stream)) is None:
                return await send(cast_to, options, stream=stream, **more)
            call = self._meter.begin(reader, {**(options.json_data or {})})
            options.post_parser = self._watching(call, options.post_parser)
            try:
                answer = await send(cast_to, options, stream=stream, **more)
                if raw_mode(options):
                    await _parse(answer)
            except BaseException as error:
                await call.break_off(error)
                raise
            if not stream:
                await call.finish()
            return answer

        return request


async def _parse(response: Any) -> None:
    """Have the body read. It is kept for the caller, who gets the same object, or error."""
    with contextlib.suppress(Exception):
        parsed = response.parse()
        if inspect.isawaitable(parsed):
            await parsed
