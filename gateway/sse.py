"""Server streams as server-sent events, for browsers' EventSource and anyone else.

    id:     the message's `resume_token`; Last-Event-ID brings it back
    event:  the name of the oneof's field that is set, "message" without one
    data:   the message in JSON, as everywhere

How a stream ends says what EventSource does next (it connects again after a 200 and
after a broken connection, and never after any other status):

    refused at first                      problem+json with its status: for good
    the server gone, the gateway stops    the answer ends: it resumes
    another error in the middle           `event: error` with the problem, the end: it
                                          resumes, and is refused if the reason stands
    RESYNC_REQUIRED                       the same with `id: resync`, which begins anew
    refused for now while it resumes      an empty answer with a longer `retry:`

Nothing is queued here. A message is read from the server when the one before is in
the connection's buffer (64 KiB of asyncio's, and what the kernel takes), so a slow
reader slows its own stream; one that reads nothing for the connection's write
time-out is cut off, and resumes.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from random import uniform
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor

from gateway.binding import Binding
from gateway.encoding import Encoders
from gateway.exchange import Exchange, HeaderList
from gateway.open_streams import Metadata, OpenStreams, owner_of
from gateway.refusals import Refusal, of_call, unavailable
from gateway.routes import Route
from gateway.tickets import metadata_of, refuse_clash
from gateway.unary import renderer
from gateway.upstream import Upstream

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 4.0
"""When EventSource connects again: spread, so that not all come back at once."""

RESUME_TOKEN: Final = "resume_token"
RESYNC_ID: Final = "resync"
"""The Last-Event-ID that asks for a new beginning. An empty one would be no header at all,
and leave the URL's token, if it has one, to be refused again."""
RESYNC_REASON: Final = "RESYNC_REQUIRED"

_SILENT: Final = frozenset({499, 503, 504})
"""Ends in the middle that tell a client nothing but to come back."""
_BEAT: Final = b":\n\n"
_HEADERS: Final[HeaderList] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Events:
    """The endpoint of a route whose method takes one message and gives a stream of them."""

    def __init__(
        self,
        route: Route,
        binding: Binding,
        encoders: Encoders,
        upstream: Upstream,
        streams: OpenStreams,
    ) -> None:
        """ValueError if the request has a field where a ticket goes."""
        refuse_clash(route.method.input_type)
        self._binding = binding
        self._call = upstream.download(route.method)
        self._event = event_writer(route, encoders)
        self._resumes = RESUME_TOKEN in route.method.input_type.fields_by_name
        self._streams = streams

    async def __call__(self, exchange: Exchange, segments: Sequence[str]) -> None:
        """Answers until either side ends it. `segments` are the path's as they were sent."""
        metadata = metadata_of(exchange)
        request, _ = await self._binding.bind(exchange, segments)
        is_resumption = self._resume(request, exchange)
        feed = _Feed(exchange)
        try:
            await self._serve(feed, request, metadata)
        except Refusal as refusal:
            if not await _told(feed, refusal, is_resumption=is_resumption):
                raise
        await feed.close()

    def _resume(self, request: Any, exchange: Exchange) -> bool:
        """Whether EventSource comes back; its header wins, as its URL stays what it was."""
        last = exchange.head.get(b"last-event-id")
        if not self._resumes:
            return last is not None
        if last is not None:
            request.resume_token = last
        if request.resume_token == RESYNC_ID:
            request.resume_token = ""
        return last is not None

    async def _serve(self, feed: "_Feed", request: Any, metadata: Metadata) -> None:
        """Passes messages on. A Refusal says why they end, but for a client that has gone."""
        call = self._call(request, metadata=metadata)
        watch = asyncio.create_task(self._watch(feed, call))
        try:
            with ExitStack() as stack:
                stack.enter_context(self._streams.entered(call.cancel))
                message = await call.read()
                stack.enter_context(self._streams.owned(owner_of(metadata)))
                while message is not grpc.aio.EOF:
                    await feed.write(self._event(message))
                    if feed.is_head:
                        break
                    message = await call.read()
        except grpc.aio.AioRpcError as error:
            raise of_call(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise unavailable() from None
        finally:
            watch.cancel()
            call.cancel()

    async def _watch(self, feed: "_Feed", call: Any) -> None:
        """Heartbeats; and the call's end when the client goes."""
        while True:
            try:
                async with asyncio.timeout(self._streams.heartbeat_seconds):
                    message = await feed.exchange.receive()
            except TimeoutError:
                await feed.write(_BEAT)
                continue
            if message["type"] == "http.disconnect":
                call.cancel()
                return


class _Feed:
    """The answer: begun with what is first written."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.is_open = False
        self.is_head = exchange.scope["method"] == "HEAD"
        # Heartbeats and events come from two tasks.
        self._turn = asyncio.Lock()

    async def write(self, text: bytes, retry_seconds: float | None = None) -> None:
        """Sends lines; returns once there is room for more."""
        async with self._turn:
            if not self.is_open:
                self.is_open = True
                await self.exchange.start(200, _HEADERS)
                retry = retry_seconds or uniform(MIN_RETRY_SECONDS, MAX_RETRY_SECONDS)
                text = b"retry: %d\n\n%s" % (round(retry * 1000), text)
            if text and not self.is_head:
                await self.exchange.write(text, more=True)

    async def close(self) -> None:
        """The answer's end."""
        if not self.is_open:
            await self.write(b"")
        await self.exchange.write(b"")


async def _told(feed: _Feed, refusal: Refusal, *, is_resumption: bool) -> bool:
    """Whether the end of the stream could be told within it; else it is the answer."""
    if not feed.is_open and not is_resumption:
        return False
    if refusal.reason == RESYNC_REASON:
        await feed.write(_last_words(refusal, f"id: {RESYNC_ID}\n".encode()))
    elif feed.is_open:
        await feed.write(b"" if refusal.status in _SILENT else _last_words(refusal))
    elif _is_passing(refusal):
        retry = max(refusal.retry_seconds or 0, uniform(MIN_RETRY_SECONDS, MAX_RETRY_SECONDS))
        await feed.write(b"", retry)
    else:
        return False
    return True


def _is_passing(refusal: Refusal) -> bool:
    """Whether it may be gone soon: who resumes is put off then, not sent away for good."""
    return refusal.status in {429, 499, 500, 503, 504}


def _last_words(refusal: Refusal, more: bytes = b"") -> bytes:
    _, _, body = refusal.answer()
    return b"%sevent: error\ndata: %s\n\n" % (more, body)


def event_writer(route: Route, encoders: Encoders) -> Callable[[Any], bytes]:
    """What makes an event of a message."""
    output = route.method.output_type
    render = renderer(route, encoders)
    name_of = _namer(output)
    has_token = RESUME_TOKEN in output.fields_by_name

    def write(message: Any) -> bytes:
        _, data = render(message)
        token = message.resume_token if has_token else ""
        head = (
            f"id: {token}\nevent: {name_of(message)}\n" if token else f"event: {name_of(message)}\n"
        )
        return b"%sdata: %s\n\n" % (head.encode(), data)

    return write


def _namer(output: Descriptor) -> Callable[[Any], str]:
    # Those of `optional` fields begin with a stroke.
    oneofs = [oneof.name for oneof in output.oneofs if not oneof.name.startswith("_")]
    if not oneofs:
        return lambda _: "message"
    oneof = oneofs[0]
    return lambda message: message.WhichOneof(oneof) or "message"
