"""Bytes to messages and back.

grpc.aio decodes before an interceptor can look, answers bytes that are no
message with a bare INTERNAL, and sends the caller the text of what went wrong
in a serializer. So here grpc carries bytes, and the edge decodes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from server.kernel.errors import DomainError, Reason
from server.kernel.tasks import to_its_end
from server.rpc.call import Call
from server.rpc.validation import check

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A larger request is MESSAGE_TOO_LARGE."""

TRANSPORT_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""A larger one grpc itself refuses unread, with a bare RESOURCE_EXHAUSTED."""

Decode = Callable[[bytes], Message]
Encode = Callable[[Any], bytes]


def decoder(handler: "grpc.RpcMethodHandler[Any, Any]") -> Decode:
    """The handler's deserializer with bounds, typed errors and the contract's rules."""
    deserialize = handler.request_deserializer
    name = _message_name(deserialize)

    def decode(raw: bytes) -> Message:
        if len(raw) > MAX_MESSAGE_BYTES:
            raise _too_large(len(raw))
        try:
            message: Message = deserialize(raw)  # type: ignore[misc]
        except DecodeError:
            raise _malformed(name) from None
        check(message)
        return message

    return decode


def encoder(handler: "grpc.RpcMethodHandler[Any, Any]") -> Encode:
    """The handler's serializer."""
    serialize: Encode = handler.response_serializer  # type: ignore[assignment]
    return serialize


class StreamContext:
    """A stream's context as its handler sees it: `read` and `write` take messages."""

    def __init__(self, call: Call, decode: Decode, encode: Encode) -> None:
        self._call = call
        self._context = call.context
        self._decode = decode
        self._encode = encode
        self._began = False

    async def read(self) -> Any:
        """The next request, or grpc.aio.EOF."""
        self._require_open()
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            return raw
        self._call.messages_in += 1
        return self._decode(raw)

    async def write(self, message: Any) -> None:
        """Send a response; waits while the peer's window is full."""
        self._require_open()
        if not self._began:
            self._began = True
            # grpc sends them with the first message; ended in the middle of that, a call has no
            # status: it would send them again, which fails, and its caller would wait for ever.
            await to_its_end(self._context.send_initial_metadata(()))
        await self._context.write(self._encode(message))
        self._call.messages_out += 1

    async def requests(self) -> AsyncIterator[Any]:
        """Every request until the caller has no more."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def _require_open(self) -> None:
        """Python 3.11's wait_for, and so the driver, may lose the cancellation that ended us."""
        if self._call.stream is not None and self._call.stream.ended:
            raise asyncio.CancelledError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _too_large(size_bytes: int) -> DomainError:
    return DomainError(
        Reason.MESSAGE_TOO_LARGE,
        f"the message has {size_bytes} bytes; at most {MAX_MESSAGE_BYTES} are taken",
        {"size_bytes": size_bytes, "limit_bytes": MAX_MESSAGE_BYTES},
    )


def _malformed(name: str) -> DomainError:
    return DomainError(Reason.MALFORMED_MESSAGE, f"the bytes are not a {name}", {"message": name})


def _message_name(deserialize: Any) -> str:
    """The full name behind `X.FromString`, which is bound to its class."""
    descriptor = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)
    return getattr(descriptor, "full_name", "message")
