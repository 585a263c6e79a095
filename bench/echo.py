"""A bare grpc.aio server that answers every call with what it was sent: `python -m bench.echo`."""

import asyncio
import signal
import sys
from typing import Any

import grpc
import orjson

METHOD = "/bench.Echo/Echo"


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def main() -> None:
    """Serves until SIGTERM; says where in one JSON line."""
    server = grpc.aio.server()
    service, name = METHOD.strip("/").split("/")
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write(orjson.dumps({"grpc": f"127.0.0.1:{port}"}).decode() + "\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
