"""Realtime within one process."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import count
from typing import Protocol, Self

from server.realtime.port import Message, Overflow

MAX_WAITING_MESSAGES = 256
"""What one subscriber may leave unread; beyond it, it has to resync."""
MAX_KNOWN_KEYS = 1_024
"""Keys per channel whose newest sequence is remembered, to drop what comes late."""


class LocalSubscription:
    """What waits for one reader: bounded, in order of publishing, one message per key."""

    def __init__(
        self, channel: str, limit: int, leave: "Callable[[LocalSubscription], None]"
    ) -> None:
        self._channel = channel
        self._limit = limit
        self._leave = leave
        self._waiting: OrderedDict[Hashable, Message] = OrderedDict()
        self._numbers = count()
        self._changed = asyncio.Event()
        self._last_sequence: int | None = None
        self._overflowed = False
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message. Raises Overflow, and StopAsyncIteration once closed."""
        while not self._waiting:
            if self._overflowed:
                self._overflowed = False
                raise Overflow(self._channel, self._last_sequence)
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        _, message = self._waiting.popitem(last=False)
        self._last_sequence = message.get("sequence", self._last_sequence)
        return message

    def close(self) -> None:
        """Hear no more; what waits is dropped. Idempotent."""
        self._end()
        self._overflowed = False

    def offer(self, message: Message) -> None:
        """Called by the channel: keep a message for the reader, or end the subscription."""
        # Numbers never equal a key, which is text: a message without one replaces nothing.
        key: Hashable = message.get("key") or next(self._numbers)
        # The newest goes to the end, so that sequences rise in the order of reading.
        self._waiting.pop(key, None)
        if len(self._waiting) >= self._limit:
            self._end()
            self._overflowed = True
            return
        self._waiting[key] = message
        self._changed.set()

    def _end(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._changed.set()
        self._leave(self)


class _Listener:
    """Hands messages on as they come."""

    def __init__(self, heard: Callable[[Message], None]) -> None:
        self.offer = heard


class _Audience(Protocol):
    """Whoever hears a channel."""

    @property
    def offer(self) -> Callable[[Message], None]: ...


class _Channel:
    """Who hears one channel, and the newest sequence of each key."""

    def __init__(self) -> None:
        # A dict for its order: who came first is told first.
        self.audience: dict[_Audience, None] = {}
        self._newest: OrderedDict[str, int] = OrderedDict()

    def publish(self, message: Message) -> None:
        if self._comes_late(message):
            return
        # A copy: who overflows leaves while we go round.
        for one in tuple(self.audience):
            one.offer(message)

    def _comes_late(self, message: Message) -> bool:
        key, sequence = message.get("key"), message.get("sequence")
        if not key or sequence is None:
            return False
        if sequence <= self._newest.get(key, sequence - 1):
            return True
        self._newest[key] = sequence
        self._newest.move_to_end(key)
        if len(self._newest) > MAX_KNOWN_KEYS:
            self._newest.popitem(last=False)
        return False


class LocalRealtime:
    """A Realtime for one process. Channels exist while someone is subscribed."""

    def __init__(self, *, max_waiting_messages: int = MAX_WAITING_MESSAGES) -> None:
        self._max_waiting_messages = max_waiting_messages
        self._channels: dict[str, _Channel] = {}

    async def publish(self, channel: str, message: Message) -> None:
        """Tell everyone who is subscribed now."""
        found = self._channels.get(channel)
        if found is not None:
            found.publish(message)

    def subscribe(self, channel: str) -> LocalSubscription:
        """Hear what is published from now on."""
        subscription = LocalSubscription(
            channel, self._max_waiting_messages, lambda left: self._leave(channel, left)
        )
        self._join(channel, subscription)
        return subscription

    def listen(self, channel: str, heard: Callable[[Message], None]) -> Callable[[], None]:
        """Call `heard` with each message from now on, until the returned function is called."""
        listener = _Listener(heard)
        self._join(channel, listener)
        return lambda: self._leave(channel, listener)

    def _join(self, channel: str, one: _Audience) -> None:
        self._channels.setdefault(channel, _Channel()).audience[one] = None

    def _leave(self, channel: str, one: _Audience) -> None:
        found = self._channels.get(channel)
        if found is not None:
            found.audience.pop(one, None)
            if not found.audience:
                del self._channels[channel]
