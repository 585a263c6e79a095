"""What happens to a call, in order, for all four kinds of RPC."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from server.kernel.errors import DomainError
from server.rpc.access import Authenticator, admitting, rule_of
from server.rpc.call import Call, Method, Step, current_task
from server.rpc.deadline import UNARY_SECONDS, Deadlines
from server.rpc.drain import Drain, OpenStream
from server.rpc.errors import Translate, abort, understand
from server.rpc.kinds import Handler, bytes_handler, core, unwritten
from server.rpc.load import MAX_STREAMS, MAX_UNARY_CALLS, Load
from server.rpc.telemetry import UNKNOWN_METHOD, Telemetry, observing


@dataclass(frozen=True, slots=True)
class Edge:
    """What the steps of a call need."""

    authenticator: Authenticator
    translate: Translate
    drain: Drain
    telemetry: Telemetry
    deadlines: Deadlines = field(default_factory=lambda: Deadlines(UNARY_SECONDS))
    calls: Load = field(default_factory=lambda: Load("calls", MAX_UNARY_CALLS))
    streams: Load = field(default_factory=lambda: Load("streams", MAX_STREAMS))

    def steps(self, method: Method, handled: Step) -> Step:
        """`handled` (decode, validate, handle, encode) and all around it, innermost first."""
        step = handled
        if method.is_unary:
            step = self.deadlines.bounded(step)
        step = admitting(self.authenticator, method, step)
        if not method.is_unary:
            step = endable(self.drain, method, step)
        if not rule_of(method.name).public:  # health answers, however busy the rest is
            step = (self.calls if method.is_unary else self.streams).limited(step)
        step = understanding(self.translate, method, step)
        step = observing(self.telemetry, method, step)
        return answering(step)


class EdgeHandlers(grpc.GenericRpcHandler):
    """Every method that is served, behind the edge's steps: the one handler that grpc asks.

    Generated `add_XServicer_to_server` functions take it for their server. grpc's own server
    would register each method, and then wait anew for every one of them at each call; an
    interceptor would be two coroutines more on the way of a call.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._served: dict[str, Handler] = {}
        self._wrapped: dict[str, Handler] = {}  # one per method served: callers cannot add any
        self._unknown = _unknown(edge)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Nothing: the same handlers come by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve these methods of a service, by their names."""
        for name, handler in handlers.items():
            self._served[f"/{service}/{name}"] = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """The method's handler, wrapped on its first call; one that answers
        METHOD_UNIMPLEMENTED when there is none.
        """
        name = handler_call_details.method
        wrapped = self._wrapped.get(name)
        if wrapped is None:
            handler = self._served.get(name)
            if handler is None:
                return self._unknown
            wrapped = self._wrapped[name] = wrap(self._edge, name, handler)
        return wrapped


def wrap(edge: Edge, name: str, handler: Handler) -> Handler:
    """`handler` behind the edge's steps; it takes and gives bytes."""
    method = Method(name, bool(handler.request_streaming), bool(handler.response_streaming))
    return bytes_handler(method, edge.steps(method, core(method, handler)))


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
        except grpc.aio.InternalError as error:
            # A peer that went away breaks reads and writes before it cancels the handler.
            raise asyncio.CancelledError from error
        except Exception as error:
            raise understand(error, method.name, translate) from error

    return understand_failure


def endable(drain: Drain, method: Method, inner: Step) -> Step:
    """A stream that its key's revocation or the server's drain can end."""
    public = rule_of(method.name).public

    async def run(call: Call) -> bytes | None:
        if not public:
            drain.refuse()
        stream = call.stream = OpenStream(current_task(), public=public)
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


def _unknown(edge: Edge) -> Handler:
    """Answers any method that is not served. It reads nothing, so every kind of call fits."""
    method = Method(UNKNOWN_METHOD, request_streaming=True, response_streaming=True)
    step = answering(observing(edge.telemetry, method, unwritten(UNKNOWN_METHOD)))
    return bytes_handler(method, step)
