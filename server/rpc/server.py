"""Serving: the grpc.aio server with everything around the domains' servicers.

Make an RpcServer, `add` every servicer, `start`; at the end `stop`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from server.kernel.tasks import end
from server.rpc.access import rule_of
from server.rpc.address import Address
from server.rpc.decoding import TRANSPORT_MESSAGE_BYTES
from server.rpc.edge import Edge, EdgeHandlers
from server.rpc.health import Check, Health
from server.rpc.kinds import Handler, is_defined
from server.rpc.listening import CannotServeError, bind
from server.rpc.tls import TlsFiles
from server.rpc.validation import warm

__all__ = ["CannotServeError", "RpcServer", "TlsFiles"]

STREAM_GRACE_SECONDS: Final = 5.0
"""So long streams may take to end on their own when the server goes away."""

CALL_GRACE_SECONDS: Final = 5.0
"""So long unary calls may then take to finish."""

LAST_WORDS_SECONDS: Final = 0.1
"""So long health watchers have to hear NOT_SERVING before their streams end."""

OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    # Two servers on one port would share its connections unevenly and unnoticed.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES),
    # Clients may ping every 10 s, with or without calls. The bound lies strictly below that:
    # a ping that comes a moment early is a strike, and strikes end in ENHANCE_YOUR_CALM.
    # (Core's constant is called MIN_RECV_PING_INTERVAL..., its string is not; a string that core
    # does not know is ignored without a word, and then five minutes apply.)
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 5),
    ("grpc.keepalive_permit_without_calls", 1),
    # Ours find dead peers, whose streams would stay open for ever.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_concurrent_streams", 10_000),
    ("grpc.max_metadata_size", 16 * 1024),
)

_log = logging.getLogger(__name__)


class RpcServer:
    """One gRPC server at one address."""

    def __init__(
        self,
        address: Address,
        edge: Edge,
        *,
        tls: TlsFiles | None = None,
        plaintext: str = "",
        reflection_mode: str = "auto",
        check: Check | None = None,
    ) -> None:
        self._address = address
        self._edge = edge
        self._tls = tls
        self._plaintext = plaintext
        self._reflect = reflection_mode == "on" or (
            reflection_mode == "auto" and address.is_loopback
        )
        self._check = check
        self._services: list[str] = []
        self._handlers = EdgeHandlers(edge)
        self._server = grpc.aio.server(handlers=(self._handlers,), options=OPTIONS)
        self._health: Health | None = None
        self._watching: asyncio.Task[None] | None = None

    def add(
        self,
        add_to_server: Callable[[Any, Any], None],
        servicer: object,
        *,
        complete: bool = False,
    ) -> None:
        """Serve `servicer`; CannotServeError when one of its methods has no access rule.

        `complete`: also when one of the service's methods is neither written nor bound.
        """
        recorder = _Recorder(self._handlers)
        add_to_server(servicer, recorder)
        closed = [name for name in recorder.methods if rule_of(name).is_closed]
        if closed:
            raise CannotServeError(f"methods without an access rule: {', '.join(closed)}")
        if complete and recorder.undefined:
            raise CannotServeError(f"methods that nothing defines: {', '.join(recorder.undefined)}")
        warm(recorder.requests)
        self._services += recorder.services

    async def start(self) -> Address:
        """Listen and serve; the bound address. CannotServeError says what is wrong."""
        self._health = Health(self._services)
        self._add_infrastructure(self._health)
        port = bind(self._server, self._address, self._tls, self._plaintext)
        await self._health.set(serving=True)
        if self._check is not None:
            await self._health.ask(self._check)
        await self._server.start()
        if self._check is not None:
            self._watching = asyncio.create_task(self._health.watch(self._check))
        return Address(self._address.host, port)

    async def stop(
        self,
        stream_grace_seconds: float = STREAM_GRACE_SECONDS,
        call_grace_seconds: float = CALL_GRACE_SECONDS,
    ) -> None:
        """Go away in order: health says so, streams end, calls finish. Bounded by the graces."""
        drain = self._edge.drain
        await self._stop_watching()
        if self._health is not None:
            await self._health.drain()
        drain.start()
        if not await drain.wait_for_streams(stream_grace_seconds):
            fields = {"streams": drain.open_streams}
            _log.warning("streams did not end in time", extra={"fields": fields})
        if drain.open_streams:
            await asyncio.sleep(LAST_WORDS_SECONDS)
            drain.end_streams()
        await self._server.stop(call_grace_seconds)
        self._edge.telemetry.flush()

    async def wait(self) -> None:
        """Until `stop` has finished."""
        await self._server.wait_for_termination()

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            await end(self._watching)

    def _add_infrastructure(self, health: Health) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health.servicer, self._handlers)
        if self._reflect:
            names = (*self._services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
            servicer = ReflectionServicer(names)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, self._handlers)


class _Recorder:
    """Stands for the server while a servicer is added: notes which services and methods come."""

    def __init__(self, handlers: EdgeHandlers) -> None:
        self._handlers = handlers
        self.services: list[str] = []
        self.methods: list[str] = []
        self.undefined: list[str] = []
        self.requests: list[Message] = []

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        self._handlers.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self._handlers.add_registered_method_handlers(service, handlers)
        self.services.append(service)
        self.methods += [f"/{service}/{name}" for name in handlers]
        for name, handler in handlers.items():
            if not is_defined(handler):
                self.undefined.append(f"/{service}/{name}")
            # X.FromString is bound to the class X.
            request_type = getattr(handler.request_deserializer, "__self__", None)
            if isinstance(request_type, type) and issubclass(request_type, Message):
                self.requests.append(request_type())
