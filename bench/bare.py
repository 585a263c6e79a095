"""What the gateway is measured against and before: `python -m bench.bare http|grpc`.

http   the least of a JSON endpoint in Starlette: a dict, answered
grpc   a server that has one wallet, in memory, and asks for no key
"""

import asyncio
import signal
import sys
from typing import Any

import grpc
import orjson
import uvicorn
import uvloop
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1 import wallet_service_pb2 as pb

USER_ID = "65f0c0ffee65f0c0ffee65f0"
PATH = f"/api/user-wallets/{USER_ID}"
IDLE_SECONDS = 30
"""As long as the gateway keeps a connection that idles."""
WALLET = pb.GetWalletResponse(
    wallet=Wallet(
        id=USER_ID,
        user_id=USER_ID,
        email="user@zaaz.example",
        credits_micros=1_000_000,
        available_micros=1_000_000,
        sequence=1,
    )
)


async def _get_wallet(_request: pb.GetWalletRequest, _context: Any) -> pb.GetWalletResponse:
    return WALLET


async def serve_grpc() -> None:
    """Until SIGTERM."""
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(
        _get_wallet,
        request_deserializer=pb.GetWalletRequest.FromString,
        response_serializer=pb.GetWalletResponse.SerializeToString,
    )
    service = pb.DESCRIPTOR.services_by_name["WalletService"].full_name
    handlers = grpc.method_handlers_generic_handler(service, {"GetWallet": handler})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await _until_told(port)
    await server.stop(None)


async def serve_http() -> None:
    """Until SIGTERM."""
    document = json_format.MessageToDict(
        WALLET, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )

    async def answer(_: Request) -> JSONResponse:
        return JSONResponse(document)

    app = Starlette(routes=[Route("/api/user-wallets/{user_id}", answer)])
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        timeout_keep_alive=IDLE_SECONDS,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    await _until_told(server.servers[0].sockets[0].getsockname()[1])
    await server.shutdown()


async def _until_told(port: int) -> None:
    """Says where it serves in one JSON line, and returns at SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write(orjson.dumps({"address": f"127.0.0.1:{port}"}).decode() + "\n")
    sys.stdout.flush()
    await stop.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run({"http": serve_http, "grpc": serve_grpc}[sys.argv[1]]())
