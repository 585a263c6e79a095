"""The channel that stubs for synchronous code are built on."""

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import grpc

from zaaz_client.channel import TypedChannel
from zaaz_client.loop_thread import LoopThread

_GIVEN: Final = ("metadata", "wait_for_ready", "compression")


class BlockingChannel(grpc.Channel):
    """Makes the calls of a TypedChannel, and waits for them.

    Unary calls and streams of responses; what streams requests has a class of its own.
    """

    def __init__(self, inner: TypedChannel, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        **options: Any,
    ) -> "grpc.UnaryUnaryMultiCallable[Any, Any]":
        """As grpc.Channel's; plain calls only."""
        start = self._inner.unary_unary(
            method, request_serializer, response_deserializer, **options
        )

        def call(request: Any, timeout: float | None = None, **given: Any) -> Any:
            async def work() -> Any:
                return await start(request, **_options(timeout, given))

            return self._thread.run(work)

        return cast("grpc.UnaryUnaryMultiCallable[Any, Any]", call)

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        **options: Any,
    ) -> "grpc.UnaryStreamMultiCallable[Any, Any]":
        """As grpc.Channel's: an iterator, with `cancel`."""
        start = self._inner.unary_stream(
            method, request_serializer, response_deserializer, **options
        )

        def call(request: Any, timeout: float | None = None, **given: Any) -> BlockingResponses:
            async def work() -> Any:
                return start(request, **_options(timeout, given))

            return BlockingResponses(self._thread.run(work), self._thread)

        return cast("grpc.UnaryStreamMultiCallable[Any, Any]", call)

    def stream_unary(
        self, method: str, *_: Any, **__: Any
    ) -> "grpc.StreamUnaryMultiCallable[Any, Any]":
        """None of the contract."""
        return cast("grpc.StreamUnaryMultiCallable[Any, Any]", _refusing(method))

    def stream_stream(
        self, method: str, *_: Any, **__: Any
    ) -> "grpc.StreamStreamMultiCallable[Any, Any]":
        """Only to say what to use."""
        return cast("grpc.StreamStreamMultiCallable[Any, Any]", _refusing(method))

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        """Not supported."""
        raise NotImplementedError

    def unsubscribe(self, callback: Any) -> None:
        """Not supported."""
        raise NotImplementedError

    def close(self) -> None:
        """The client closes it."""


class BlockingResponses(Iterator[Any]):
    """The responses of a call, as they come."""

    def __init__(self, call: Any, thread: LoopThread) -> None:
        self._call = call
        self._thread = thread

    def __next__(self) -> Any:
        response = self._thread.run(self._call.read)
        if response is grpc.aio.EOF:
            raise StopIteration
        return response

    def cancel(self) -> None:
        """No more of them."""

        async def work() -> None:
            self._call.cancel()

        self._thread.run(work)


def _options(timeout: float | None, given: dict[str, Any]) -> dict[str, Any]:
    options = {name: given[name] for name in _GIVEN if given.get(name) is not None}
    return options if timeout is None else {**options, "timeout": timeout}


def _refusing(method: str) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"{method} streams requests: client.usage_stream does that")

    return call
