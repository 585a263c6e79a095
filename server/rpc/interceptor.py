"""The one interceptor: what happens to a call, in order, for all four kinds of RPC."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc

from server.kernel.errors import DomainError, Reason
from server.rpc.access import Authenticator, admitting, rule_of
from server.rpc.call import Call, Method, Step
from server.rpc.deadline import UNARY_SECONDS, bounded
from server.rpc.decoding import StreamContext, decoder, encoder
from server.rpc.drain import Drain, OpenStream
from server.rpc.errors import Translate, abort, understand
from server.rpc.telemetry import UNKNOWN_METHOD, Telemetry, observing

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


@dataclass(frozen=True, slots=True)
class Edge:
    """What the steps of a call need."""

    authenticator: Authenticator
    translate: Translate
    drain: Drain
    telemetry: Telemetry
    unary_seconds: float = UNARY_SECONDS

    def steps(self, method: Method, core: Step) -> Step:
        """`core` (decode, validate, handle, encode) with everything around it, innermost first."""
        step = core
        if method.is_unary:
            step = bounded(step, self.unary_seconds)
        step = admitting(self.authenticator, method, step)
        if not method.is_unary:
            step = endable(self.drain, method, step)
        step = understanding(self.translate, method, step)
        step = observing(self.telemetry, method, step)
        return answering(step)


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each method's handler once, on its first call."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._wrapped: dict[str, Handler] = {}  # one per method served: callers cannot add any
        self._unknown = _unimplemented(edge, Method(UNKNOWN_METHOD, True, True))

    async def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The wrapped handler; one that answers METHOD_UNIMPLEMENTED when there is none."""
        name = handler_call_details.method
        wrapped = self._wrapped.get(name)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return self._unknown
            wrapped = self._wrapped[name] = wrap(self._edge, name, handler)
        return wrapped


def wrap(edge: Edge, name: str, handler: Handler) -> Handler:
    """`handler` behind the edge's steps; it takes and gives bytes."""
    method = Method(name, bool(handler.request_streaming), bool(handler.response_streaming))
    core = _CORES[method.request_streaming, method.response_streaming]
    return _bytes_handler(method, edge.steps(method, core(_behaviour(handler), handler)))


def answering(inner: Step) -> Step:
    """Outermost: a refusal becomes the call's status."""

    async def answer(call: Call) -> bytes | None:
        try:
            return await inner(call)
        except DomainError as error:
            refusal = error
        await abort(call.context, refusal)
        return None

    return answer


def understanding(translate: Translate, method: Method, inner: Step) -> Step:
    """Whatever a handler raises leaves as a DomainError, but for grpc's own abort."""

    async def understand_failure(call: Call) -> bytes | None:
        try:
            return await inner(call)
        except (DomainError, grpc.aio.AbortError):
            raise
        except Exception as error:
            # A peer that went away breaks reads and writes before it cancels the handler.
            if isinstance(error, grpc.aio.InternalError):
                raise asyncio.CancelledError from error
            raise understand(error, method.name, translate) from error

    return understand_failure


def endable(drain: Drain, method: Method, inner: Step) -> Step:
    """A stream that its key's revocation or the server's drain can end."""
    public = rule_of(method.name).public

    async def run(call: Call) -> bytes | None:
        if not public:
            drain.refuse()
        stream = call.stream = OpenStream(_current_task(), public=public)
        with drain.track(stream):
            try:
                response = await inner(call)
            except asyncio.CancelledError:
                if not stream.was_ended():
                    raise
                response = None
            if stream.error is not None:
                raise stream.error
            return response

    return run


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


def _behaviour(handler: Handler) -> Callable[..., Any]:
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    behaviour: Any = next(kind for kind in kinds if kind is not None)
    if inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour):
        return cast("Callable[..., Any]", behaviour)
    return _not_written  # the generated stub of a method that its servicer does not define


async def _not_written(*_: object) -> None:
    raise _unimplemented_error()


def _unimplemented_error() -> DomainError:
    return DomainError(Reason.METHOD_UNIMPLEMENTED, "this server does not have the method")


def _unimplemented(edge: Edge, method: Method) -> Handler:
    async def run(_: Call) -> bytes | None:
        raise _unimplemented_error()

    step = answering(observing(edge.telemetry, method, run))
    return _bytes_handler(method, step)


def _bytes_handler(method: Method, step: Step) -> Handler:
    async def with_request(raw: bytes, context: Any) -> bytes | None:
        return await step(Call(method, context, raw))

    async def with_requests(_: AsyncIterator[bytes], context: Any) -> bytes | None:
        return await step(Call(method, context))

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


def _current_task() -> "asyncio.Task[object]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an RPC runs in a task of its own")
    return task
