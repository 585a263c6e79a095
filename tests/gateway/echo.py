"""A gRPC server of every kind of binding (echo.proto), and the gateway in front of it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import google.api.annotations_pb2
import grpc
import httpx2
import uvicorn
from google.api import httpbody_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

from gateway.app import build
from gateway.open_streams import OpenStreams
from gateway.security import SecuritySettings, hardened
from gateway.upstream import Upstream, connect

HERE = Path(__file__).parent
NAME = "echo.proto"
GOOGLE = Path(google.api.annotations_pb2.__file__).parents[2]
UNLIMITED = SecuritySettings(rate_per_second=0, key_rate_per_second=0)
PIECE_BYTES = 32 * 1024
PAUSED_PIECES = 2


@cache
def echo_file() -> FileDescriptor:
    """The service's descriptors."""
    with TemporaryDirectory() as directory:
        out = Path(directory) / "set"
        well_known = Path(protoc.__file__).parent / "_proto"
        paths = [f"-I{path}" for path in (HERE, GOOGLE, well_known)]
        assert protoc.main(["protoc", *paths, f"--descriptor_set_out={out}", NAME]) == 0
        made = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(made.file[0].SerializeToString())
    return pool.FindFileByName(NAME)


def message(kind: str, /, **fields: Any) -> Any:
    """A message of echo.proto."""
    return GetMessageClass(echo_file().message_types_by_name[kind])(**fields)


class Echo:
    """The service's methods, and what a test wants to know or to hold back."""

    def __init__(self) -> None:
        self.pieces = 0
        self.heard = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.bytes_sent = 0
        self.upload_ended = asyncio.Event()
        self.bytes_heard = 0
        self.metadata: list[tuple[str, str | bytes]] = []
        self.announced_bytes = ""
        self.watched: list[Any] = []

    async def put_everything(self, request: Any, _context: Any) -> Any:
        return message(
            "PutEverythingResponse",
            everything=request.everything,
            request_id=request.request_id,
            note=request.note,
        )

    async def get_everything(self, request: Any, _context: Any) -> Any:
        return message("GetEverythingResponse", everything=request.everything)

    async def get_name(self, request: Any, _context: Any) -> Any:
        return message("GetNameResponse", name=request.name)

    async def list_things(self, request: Any, _context: Any) -> Any:
        things = [message("Thing", id=str(number)) for number in range(request.page_size)]
        return message("ListThingsResponse", things=things)

    async def list_rows(self, request: Any, context: Any) -> Any:
        return await self.list_things(request, context)

    async def get_thing(self, request: Any, _context: Any) -> Any:
        name = "x" * request.name_length
        thing = message("Thing", id=request.id, name=name, etag="7")
        return message("GetThingResponse", thing=thing)

    async def get_row(self, request: Any, context: Any) -> Any:
        return await self.get_thing(request, context)

    async def delete_things(self, request: Any, _context: Any) -> Any:
        return message("DeleteThingsResponse", ids=request.ids)

    async def update_thing(self, request: Any, _context: Any) -> Any:
        return message(
            "UpdateThingResponse",
            thing=request.thing,
            update_mask=request.update_mask,
            request_id=request.request_id,
        )

    async def fail(self, request: Any, context: Any) -> Any:
        if request.hang:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        if request.code:
            code = next(code for code in grpc.StatusCode if code.value[0] == request.code)
            details = (("grpc-status-details-bin", request.status),) if request.status else ()
            await context.abort(code, request.message, details)
        metadata = dict(context.invocation_metadata())
        return message(
            "FailResponse", metadata=metadata, time_remaining=context.time_remaining() or 0
        )

    async def receive(self, request: Any, context: Any) -> Any:
        self.metadata = list(context.invocation_metadata())
        data = request.source.encode() + b":" + request.payload.data
        return httpbody_pb2.HttpBody(content_type=request.payload.content_type, data=data)

    async def upload(self, requests: Any, context: Any) -> Any:
        context.add_done_callback(self._ended)
        self.announced_bytes = dict(context.invocation_metadata()).get("x-content-length", "")
        return await self._received(requests)

    def _ended(self, _context: Any) -> None:
        self.upload_ended.set()

    async def _received(self, requests: Any) -> Any:
        head, digest, size, largest = None, hashlib.sha256(), 0, 0
        async for request in requests:
            if head is None:
                head = request.head
                continue
            digest.update(request.chunk)
            size += len(request.chunk)
            self.bytes_heard = size
            largest = max(largest, len(request.chunk))
            self.pieces += 1
            self.heard.set()
            if self.pieces == head.stop_after_pieces:
                break
            if self.pieces == head.pause_after_pieces:
                await self.go_on.wait()
        assert head is not None
        return message(
            "UploadResponse",
            name=head.name,
            size_bytes=size,
            sha256=digest.hexdigest(),
            largest_piece_bytes=largest,
        )

    async def upload_body(self, requests: Any, _context: Any) -> Any:
        name, size, content_type = "", 0, ""
        async for request in requests:
            name = name or request.name
            content_type = request.content.content_type or content_type
            size += len(request.content.data)
        return message("UploadResponse", name=name, size_bytes=size, content_type=content_type)

    async def download(self, request: Any, context: Any) -> AsyncIterator[Any]:
        disposition = ("content-disposition", f'attachment; filename="{request.name}"')
        await context.send_initial_metadata((disposition, ("x-secret", "kept")))
        async for piece in self._pieces(request, context):
            yield httpbody_pb2.HttpBody(content_type="text/plain", data=piece)

    async def download_chunks(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for piece in self._pieces(request, context):
            yield message("DownloadChunksResponse", chunk=piece)

    async def watch_thing(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.metadata = list(context.invocation_metadata())
        self.watched.append(request)
        start = int(request.resume_token or 0)
        name = "x" * request.size_bytes
        try:
            for number in range(start + 1, start + request.count + 1):
                thing = message("Thing", id=str(number), name=name)
                yield message("WatchThingResponse", resume_token=str(number), thing=thing)
                self.bytes_sent += request.size_bytes
            if request.code:
                await _fail(context, request.code, request.reason)
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def _pieces(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        sent = 0
        if request.size_bytes < 0:
            await context.abort(grpc.StatusCode.INTERNAL, "it broke")
        try:
            while sent < request.size_bytes:
                if request.fail_at_bytes and sent >= request.fail_at_bytes:
                    await context.abort(grpc.StatusCode.INTERNAL, "it broke")
                size = min(PIECE_BYTES, request.size_bytes - sent)
                yield b"x" * size
                sent += size
                self.bytes_sent = sent
        finally:
            self.cancelled.set()


async def _fail(context: Any, code: int, reason: str) -> None:
    status = status_pb2.Status(code=code, message="as it was told to")
    if reason:
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason))
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    known = next(each for each in grpc.StatusCode if each.value[0] == code)
    await context.abort(known, status.message, details if reason else ())


@asynccontextmanager
async def grpc_serving(echo: Echo) -> AsyncIterator[str]:
    """The service on a port of its own; its target."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(echo),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def _handlers(echo: Echo) -> grpc.GenericRpcHandler:
    service = echo_file().services_by_name["EchoService"]
    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
    }
    handlers = {}
    for method in service.methods:
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in method.name)[1:]
        make: Any = makers[method.client_streaming, method.server_streaming]
        handlers[method.name] = make(
            getattr(echo, snake),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


@asynccontextmanager
async def gateway_to(
    target: str, security: SecuritySettings = UNLIMITED, streams: OpenStreams | None = None
) -> AsyncIterator[str]:
    """The gateway for the service at `target`, on a port of its own; its base URL."""
    channel = connect(target)
    streams = OpenStreams() if streams is None else streams
    app = build(security, Upstream(channel), [echo_file()], streams)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, lifespan="off", log_config=None, **hardened(security)
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        streams.end()
        await server.shutdown()
        await channel.close()


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that decodes nothing by itself and says no more than it is told."""
    async with httpx2.AsyncClient(base_url=url, timeout=20, **options) as client:
        client.headers = httpx2.Headers({"accept": "*/*"})
        yield client
