"""The HTTP connection itself, stricter than uvicorn makes it.

uvicorn has no time-outs but the one between requests, no limit on a head's size
and a plain text for its own refusals. What is refused here never reaches the
application:

    too many connections -> 503        slow head, slow body -> 408
    long URL -> 414, long head -> 431  two ways to read one request -> 400

A client that does not read its answer is cut off.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.problems import Problem
from gateway.security.proxies import address_of, is_trusted
from gateway.security.settings import SecuritySettings
from gateway.security.wire import (
    ambiguity,
    crowded,
    late,
    malformed,
    on_the_wire,
    too_large_head,
    too_long_url,
)

MAX_PIPELINED: Final = 16
"""Requests that may wait on a connection for the one before them."""

MAX_DRAINED_BYTES: Final = 1024 * 1024
"""Of a body that nobody wants any more, so that its sender gets to read why."""

CHUNKING_FREE_BYTES: Final = 64 * 1024
CHUNKING_TIMES: Final = 8
"""Chunk sizes, extensions and trailers may be so many times as much as the body they carry."""


class Census:
    """Who is connected."""

    def __init__(self) -> None:
        self.total = 0
        self.by_address: Counter[str] = Counter()

    def enter(self, address: str) -> None:
        self.total += 1
        self.by_address[address] += 1

    def leave(self, address: str) -> None:
        self.total -= 1
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]


def guarded(settings: SecuritySettings) -> type[HttpToolsProtocol]:
    """The protocol class for `uvicorn.Config(http=...)`; one for each server."""
    return type("Guarded", (GuardedProtocol,), {"settings": settings, "census": Census()})


class GuardedProtocol(HttpToolsProtocol):
    """One connection under the limits of `settings`."""

    settings: ClassVar[SecuritySettings]
    census: ClassVar[Census]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._refusal: Problem | None = None
        self._closed = False
        self._in_head = self._in_body = False
        self._head_bytes = 0
        self._raw_bytes = self._body_bytes = self._window_bytes = self._drained_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._address = ""

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Lets the peer in, or tells it that there is no room."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self.census.enter(self._address)
        if self._is_crowded():
            self._refuse_now(crowded())
        else:
            self._start_timer(self.settings.head_timeout_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the peer."""
        self._closed = True
        self._stop_timer()
        self.resume_writing()
        self.census.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what came, and sees to it that the rest comes in time."""
        if self._closed:
            return
        began_in_body = self._in_body
        if self._in_body:
            self._raw_bytes += len(data)
        super().data_received(data)
        if self._closed:
            return
        if self._in_head and not began_in_body:
            # The parser keeps an unfinished header to itself, however long it gets.
            self._head_bytes += len(data)
            self._check_head()
        elif self._in_body:
            self._check_chunking()
        self._watch()

    def pause_writing(self) -> None:
        """The client leaves what it was sent: not for ever."""
        super().pause_writing()
        seconds = self.settings.write_timeout_seconds
        self._write_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # The parser's events

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._stop_timer()
        self._in_head, self._in_body = True, False
        self._head_bytes = 0
        self._raw_bytes = self._body_bytes = self._window_bytes = self._drained_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the URL."""
        super().on_url(url)
        if len(self.url) > self.settings.max_url_bytes:
            self._refuse(too_long_url(self.settings.max_url_bytes))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or a trailer behind the body: those could pass for headers."""
        if self._in_body:
            self._refuse(malformed("trailers are not taken"))
        super().on_header(name, value)
        if len(self.headers) > self.settings.max_headers:
            self._refuse(too_large_head(f"more than {self.settings.max_headers} headers"))

    def on_headers_complete(self) -> None:
        """The head is there: refuse what could be read in two ways, then run the application."""
        self._in_head, self._in_body = False, True
        doubt = ambiguity(self.headers, self.parser.get_http_version())
        if doubt:
            self._refuse(malformed(doubt))
        if self.parser.should_upgrade():
            self._refuse(malformed("upgrades are not taken"))
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(malformed("too many requests at once"))
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        self._window_bytes += len(body)
        if self.cycle.response_complete:
            self._drained_bytes += len(body)
            if self._drained_bytes > MAX_DRAINED_BYTES:
                self._hang_up()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body's end."""
        self._in_body = False
        super().on_message_complete()

    # Time

    def _watch(self) -> None:
        """Keeps a timer for as long as something is awaited of the client, and only then."""
        if self._in_head or self._is_idle_without_a_timer():
            self._start_timer(self.settings.head_timeout_seconds, self._head_is_late)
        elif self._in_body:
            self._start_timer(self.settings.body_window_seconds, self._check_pace)
        else:
            self._stop_timer()

    def _is_idle_without_a_timer(self) -> bool:
        """Empty lines between requests end uvicorn's own time-out and begin no request."""
        if self._in_body or self.timeout_keep_alive_task is not None:
            return False
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self, seconds: float, ended: Callable[[], None]) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, ended)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self._in_head:
            limit = self.settings.head_timeout_seconds
            self._refuse_now(late("the head did not come in time", limit))
        else:
            self._hang_up()

    def _check_pace(self) -> None:
        self._timer = None
        settings = self.settings
        least = settings.min_body_bytes_per_second * settings.body_window_seconds
        # While reading is paused it is the application that is slow.
        if self._window_bytes < least and not self.flow.read_paused:
            self._refuse_now(late("the body came too slowly", settings.body_window_seconds))
            return
        self._window_bytes = 0
        self._watch()

    # Size

    def _check_head(self) -> None:
        limit = self.settings.max_head_bytes
        if self._head_bytes > limit:
            self._refuse_now(too_large_head(f"headers larger than {limit} bytes"))

    def _check_chunking(self) -> None:
        allowed = CHUNKING_FREE_BYTES + CHUNKING_TIMES * self._body_bytes
        if self._raw_bytes - self._body_bytes > allowed:
            self._refuse_now(malformed("more chunking than body"))

    def _is_crowded(self) -> bool:
        if self.census.total > self.settings.max_connections:
            return True
        if is_trusted(address_of(self._address), self.settings.trusted_proxies):
            return False
        here = self.census.by_address[self._address]
        return here > self.settings.max_connections_per_address

    # Refusals

    def _refuse(self, refusal: Problem) -> None:
        """Ends the parsing: the parser hands any exception on to `send_400_response`."""
        self._refusal = refusal
        raise ValueError(refusal[0])

    def send_400_response(self, msg: str) -> None:
        """What uvicorn does with a request that is not HTTP."""
        self._refuse_now(self._refusal or malformed(msg))

    def _refuse_now(self, refusal: Problem) -> None:
        """Answers, unless an answer is under way that this one would run into; hangs up."""
        cycle = self.cycle
        is_free = cycle is None or cycle.response_complete or not cycle.response_started
        if is_free and not self.pipeline and not self._closed:
            self.transport.write(on_the_wire(refusal))
        self._hang_up()

    def _hang_up(self) -> None:
        self._closed = True
        self._stop_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
