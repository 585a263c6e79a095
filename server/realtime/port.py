"""Realtime: whoever watches a channel hears of changes at once, or that it missed some.

Shaped for one Redis Streams reader per process that hands messages to this
process's subscriptions. Nothing here is durable: a watcher starts from a
snapshot, applies what is newer by its sequence, and takes a new snapshot after
an Overflow.

A message is a mapping that BSON can carry. Two of its fields mean something:

    sequence  int, rises with every change of the same thing; what a resync starts from
    key       str, optional: the message is the whole state of that thing, so a newer
              one replaces it where it waits, and an older one that comes late is dropped
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

Message = Mapping[str, Any]


class Overflow(Exception):  # noqa: N818 - it names what happened
    """The subscriber was too slow and the subscription is over.

    `last_sequence` is that of the last message that was delivered, None before
    the first: what came after is to be read again from the database.
    """

    def __init__(self, channel: str, last_sequence: int | None) -> None:
        super().__init__(f"a subscriber of {channel} fell too far behind")
        self.channel = channel
        self.last_sequence = last_sequence


class Subscription(Protocol):
    """Messages of one channel, for one reader: `async for message in subscription`."""

    def __aiter__(self) -> Self:
        """The iterator itself."""
        ...

    async def __anext__(self) -> Message:
        """The next message. Raises Overflow, and StopAsyncIteration once closed."""
        ...

    def close(self) -> None:
        """Hear no more. Idempotent; always called in the end, or the channel keeps feeding it."""
        ...


class Realtime(Protocol):
    """What domains know of realtime."""

    async def publish(self, channel: str, message: Message) -> None:
        """Tell everyone who is subscribed now; never waits for a subscriber."""
        ...

    def subscribe(self, channel: str) -> Subscription:
        """Hear what is published from now on."""
        ...

    def listen(self, channel: str, heard: Callable[[Message], None]) -> Callable[[], None]:
        """Call `heard` with each message from now on, until the returned function is called.

        For who keeps nothing and only notes that something happened: there is no
        queue that could overflow and no task that waits. `heard` must be quick.
        """
        ...
