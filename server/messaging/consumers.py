"""What flows through the outbox, and who takes it.

A consumer's `handle` says how it went by how it leaves:

    returns                    handled: the message is not given to it again
    raises Rejected            it never will be: to the dead letters at once
    raises ConsumerUnavailable not the message's fault: later, as often as it takes
    raises anything else       again after a pause, a bounded number of times

Delivery is at least once, so handling a message twice must do what once does.
Order is not promised: a payload that needs one carries a sequence.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `payload` is anything BSON carries, `created_time` milliseconds.

    `key` says what it is about ("" for nothing in particular); `attempts`
    counts how often this consumer has failed to handle it.
    """

    id: ObjectId
    topic: str
    key: str
    payload: Mapping[str, Any]
    created_time: int
    attempts: int


Handle = Callable[[Message], Awaitable[None]]


class Rejected(Exception):  # noqa: N818 - a verdict on the message
    """The message can never be handled; the exception's text is the dead letter's reason."""


class ConsumerUnavailable(Exception):  # noqa: N818 - a state of the world
    """What the consumer depends on is away. Not counted as an attempt."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """Someone with a name of its own, the topics it takes, and how it handles a message."""

    name: str
    topics: frozenset[str]
    handle: Handle


class Consumers:
    """All consumers of this house. app.py adds them before anything is written or dispatched."""

    def __init__(self) -> None:
        self._by_name: dict[str, Consumer] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._sealed = False

    def add(self, name: str, topics: Sequence[str], handle: Handle) -> None:
        """Register a consumer. RuntimeError once dispatching has begun, ValueError for a twin."""
        if self._sealed:
            raise RuntimeError(f"consumer {name} comes too late: messages are being dispatched")
        if name in self._by_name:
            raise ValueError(f"there is a consumer {name} already")
        self._by_name[name] = Consumer(name, frozenset(topics), handle)
        for topic in self._by_name[name].topics:
            self._names[topic] = (*self._names.get(topic, ()), name)

    def names(self, topic: str) -> tuple[str, ...]:
        """Who takes this topic."""
        return self._names.get(topic, ())

    def seal(self) -> tuple[Consumer, ...]:
        """All of them; nobody is added from now on."""
        self._sealed = True
        return tuple(self._by_name.values())
