"""The four kinds of RPC: how each decodes, calls its handler and encodes.

grpc hands over and takes bytes. A stream's handler, be it a generator or a
coroutine, is driven from here.
"""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias, cast

import grpc

from server.kernel.errors import DomainError, Reason
from server.rpc.call import Call, Method, Step
from server.rpc.decoding import StreamContext, decoder, encoder

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def core(method: Method, handler: Handler) -> Step:
    """The innermost step of the method: decode, validate, handle, encode."""
    make = _CORES[method.request_streaming, method.response_streaming]
    return make(behaviour_of(method.name, handler), handler)


def _unary_unary(behaviour: Callable[..., Any], handler: Handler) -> Step:
    decode, encode = decoder(handler), encoder(handler)

    async def run(call: Call) -> bytes | None:
        return encode(await behaviour(decode(_raw(call)), call.context))

    return run


def _stream_unary(behaviour: Callable[..., Any], handler: Handler) -> Step:
    decode, encode = decoder(handler), encoder(handler)

    async def run(call: Call) -> bytes | None:
        context = StreamContext(call, decode, encode)
        response = encode(await behaviour(context.requests(), context))
        call.messages_out += 1
        return response

    return run


def _unary_stream(behaviour: Callable[..., Any], handler: Handler) -> Step:
    decode, encode = decoder(handler), encoder(handler)

    async def run(call: Call) -> bytes | None:
        call.messages_in += 1
        context = StreamContext(call, decode, encode)
        await _respond(behaviour(decode(_raw(call)), context), context)
        return None

    return run


def _stream_stream(behaviour: Callable[..., Any], handler: Handler) -> Step:
    decode, encode = decoder(handler), encoder(handler)

    async def run(call: Call) -> bytes | None:
        context = StreamContext(call, decode, encode)
        await _respond(behaviour(context.requests(), context), context)
        return None

    return run


_CORES = {
    (False, False): _unary_unary,
    (True, False): _stream_unary,
    (False, True): _unary_stream,
    (True, True): _stream_stream,
}


async def _respond(responses: Any, context: StreamContext) -> None:
    """Run a stream handler: a generator yields its responses, a coroutine writes them itself.

    Generators are written from here and not by grpc, so that a cancellation always arrives
    within the edge's steps and never between two of a generator's items.
    """
    if not hasattr(responses, "__anext__"):
        await responses
        return
    async with aclosing(responses):
        async for response in responses:
            await context.write(response)


def behaviour_of(name: str, handler: Handler) -> Callable[..., Any]:
    """What the servicer defines for the method; a refusal when it defines nothing."""
    behaviour = _given(handler)
    return cast("Callable[..., Any]", behaviour) if is_written(behaviour) else unwritten(name)


def is_defined(handler: Handler) -> bool:
    """Whether the servicer defines the method."""
    return is_written(_given(handler))


def is_written(behaviour: object) -> bool:
    """Whether it is more than the generated stub of a method, which is a plain function."""
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


def _given(handler: Handler) -> object:
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    return next(kind for kind in kinds if kind is not None)


def unwritten(name: str) -> Callable[..., Any]:
    """Answers METHOD_UNIMPLEMENTED."""

    async def refuse(*_: object) -> None:
        message = "this server does not have the method"
        raise DomainError(Reason.METHOD_UNIMPLEMENTED, message, {"method": name})

    return refuse


def bytes_handler(method: Method, step: Step) -> Handler:
    """A handler of the method's kind that lets `step` answer its calls."""

    async def with_request(raw: bytes, context: Any) -> bytes | None:
        return await step(Call(method, context, context.invocation_metadata(), raw))

    async def with_requests(_: AsyncIterator[bytes], context: Any) -> bytes | None:
        return await step(Call(method, context, context.invocation_metadata()))

    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.request_streaming, method.response_streaming]
    handler: Handler = make(with_requests if method.request_streaming else with_request)
    return handler


def _raw(call: Call) -> bytes:
    assert call.raw is not None, "a single-message request has its bytes"
    return call.raw
