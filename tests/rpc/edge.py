"""A service of every kind of RPC, and a real server that serves it behind the edge."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from zaaz.common.v1 import access_pb2
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest, WalletDifference

from server.kernel.errors import DomainError, Reason
from server.kernel.principal import Principal
from server.rpc.address import Address
from server.rpc.drain import Drain
from server.rpc.edge import Edge
from server.rpc.logs import EventLog, JsonFormatter
from server.rpc.server import RpcServer
from server.rpc.telemetry import Telemetry

M = TypeVar("M", bound=Message)

SERVICE = "testing.v1.KindsService"
SCOPE = "wallet.read"
USER = "0123456789abcdef01234567"
LOOPBACK = Address("127.0.0.1", 0)

# name: (streams requests, streams responses, rule)
METHODS: Mapping[str, tuple[bool, bool, access_pb2.AccessRule | None]] = {
    "Unary": (False, False, access_pb2.AccessRule(scopes=[SCOPE])),
    "ServerStream": (False, True, access_pb2.AccessRule(scopes=[SCOPE])),
    "ClientStream": (True, False, access_pb2.AccessRule(scopes=[SCOPE])),
    "BidiStream": (True, True, access_pb2.AccessRule(scopes=[SCOPE])),
    "Public": (False, False, access_pb2.AccessRule(public=True)),
    "Closed": (False, False, None),
}

MAKE: Mapping[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _declare_service() -> None:
    """Put the service, with its access options, where rules are looked up."""
    file = descriptor_pb2.FileDescriptorProto(
        name="testing/v1/kinds_service.proto", package="testing.v1", syntax="proto3"
    )
    file.dependency.append("zaaz/wallet/v1/wallet_service.proto")
    service = file.service.add(name="KindsService")
    for name, (streams_in, streams_out, rule) in METHODS.items():
        method = service.method.add(
            name=name,
            input_type=".zaaz.wallet.v1.GetWalletRequest",
            output_type=".zaaz.wallet.v1.WalletDifference",
            client_streaming=streams_in,
            server_streaming=streams_out,
        )
        if rule is not None:
            method.options.Extensions[access_pb2.access].CopyFrom(rule)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


_declare_service()


def adding(**behaviours: Any) -> Callable[[Any, Any], None]:
    """What a generated add_..._to_server does, for these methods of the service."""
    handlers = {
        name: MAKE[METHODS[name][:2]](
            behaviour,
            request_deserializer=GetWalletRequest.FromString,
            response_serializer=WalletDifference.SerializeToString,
        )
        for name, behaviour in behaviours.items()
    }

    def add(_: object, server: Any) -> None:
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        server.add_generic_rpc_handlers((generic,))
        server.add_registered_method_handlers(SERVICE, handlers)

    return add


class Keys:
    """An Authenticator of four keys: good, admin, scopeless, expired; and of their revocation."""

    def __init__(self) -> None:
        self.watching: list[Callable[[DomainError], None]] = []
        self.asked: list[str] = []

    async def authenticate(self, token: str) -> Principal:
        self.asked.append(token)
        scopes = {"good": {SCOPE}, "admin": {"admin"}, "scopeless": {"usage.write"}}
        if token == "expired":
            raise DomainError(Reason.API_KEY_EXPIRED, "the API key has expired")
        if token not in scopes:
            raise DomainError(Reason.CREDENTIALS_INVALID, "no such API key")
        return Principal(f"client-of-{token}", token, frozenset(scopes[token]))

    async def authenticate_ticket(self, ticket: str, method: str, raw: bytes) -> Principal:
        raise DomainError(Reason.TICKET_INVALID, f"{ticket} does not open {method}")

    def watch(self, _: Principal, end: Callable[[DomainError], None]) -> Callable[[], None]:
        self.watching.append(end)
        return lambda: self.watching.remove(end)

    def revoke(self) -> None:
        for end in tuple(self.watching):
            end(DomainError(Reason.API_KEY_REVOKED, "the API key was revoked"))


@dataclass
class Running:
    """A server that runs, and a client of it that sends the good key."""

    server: RpcServer
    edge: Edge
    keys: Keys
    address: Address
    channel: grpc.aio.Channel
    log: EventLog
    lines: io.StringIO
    metadata: tuple[tuple[str, str], ...] = (("authorization", "Bearer good"),)

    def call(self, name: str, *request: Any, **options: Any) -> Any:
        """A call of the service's method. Requests of bytes go out as they are."""
        streams_in, streams_out, _ = METHODS.get(name, (False, False, None))
        kind = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        multi = getattr(self.channel, kind)(f"/{SERVICE}/{name}", _to_bytes, _difference)
        return multi(*request, **{"metadata": self.metadata, **options})

    def events(self, name: str = "rpc") -> list[dict[str, Any]]:
        """The log's events of that name so far."""
        self.edge.telemetry.flush()
        self.log.flush()
        events = [json.loads(line) for line in self.lines.getvalue().splitlines()]
        return [event for event in events if event["event"] == name]

    async def next_event(self) -> dict[str, Any]:
        """The first call's event, which may come a moment after its answer."""
        async with asyncio.timeout(10):
            while True:
                for event in self.events():
                    return event
                await asyncio.sleep(0)


@dataclass
class Options:
    """How a server differs from the usual one."""

    edge: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    translate: Callable[[BaseException], DomainError | None] = lambda _: None


USUAL = Options()


@asynccontextmanager
async def running(options: Options = USUAL, **behaviours: Any) -> AsyncIterator[Running]:
    """A server of the service with these handlers, on a port of its own."""
    keys, lines = Keys(), io.StringIO()
    log = EventLog(lines)
    log.setFormatter(JsonFormatter())
    edge = Edge(keys, options.translate, Drain(), Telemetry(log), **options.edge)
    server = RpcServer(LOOPBACK, edge, **options.server)
    server.add(adding(**behaviours), object())
    address = await server.start()
    try:
        async with grpc.aio.insecure_channel(str(address)) as channel:
            yield Running(server, edge, keys, address, channel, log, lines)
            await channel.close()
    finally:
        await server.stop(0.0, 0.0)


def request(user_id: str = USER) -> GetWalletRequest:
    return GetWalletRequest(user_id=user_id)


async def echo(message: GetWalletRequest, _: Any) -> WalletDifference:
    return WalletDifference(field=message.user_id)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """What a call fails with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")


def status_of(error: Any) -> status_pb2.Status:
    """The google.rpc.Status of a failed call; an empty one where there is none."""
    trailers = dict(error.trailing_metadata() or ())
    return status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))


def detail(status: status_pb2.Status, kind: type[M]) -> M | None:
    found = kind()
    for packed in status.details:
        if packed.Unpack(found):
            return found
    return None


def reason_of(error: Any) -> str:
    info = detail(status_of(error), error_details_pb2.ErrorInfo)
    return info.reason if info is not None else ""


def metadata_of(error: Any) -> dict[str, str]:
    info = detail(status_of(error), error_details_pb2.ErrorInfo)
    return dict(info.metadata) if info is not None else {}


def _to_bytes(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _difference(raw: bytes) -> WalletDifference:
    return WalletDifference.FromString(raw)
