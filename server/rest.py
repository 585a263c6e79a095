"""The REST gateway beside this server: a process of its own that comes and goes with it.

It reaches the server as anyone does, over gRPC with the caller's credentials;
none of the server's secrets are in its environment.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import orjson
from cryptography import x509

from server.config import GATEWAY_PREFIX, Settings
from server.kernel.tasks import end
from server.rpc.address import Address
from server.rpc.listening import CannotServeError

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
"""More than the gateway gives its requests."""
FIRST_RESTART_DELAY_SECONDS: Final = 0.1
MAX_RESTART_DELAY_SECONDS: Final = 10.0
STABLE_AFTER_SECONDS: Final = 60.0

_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_INHERITED: Final = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "TZ", "PYTHONPATH")
_log = logging.getLogger(__name__)


@asynccontextmanager
async def rest_beside(settings: Settings, grpc: Address) -> AsyncIterator[str]:
    """A gateway to the server at `grpc` until the block is left; where it listens.

    "" without one, if ZAAZ_REST_ADDRESS says so. CannotServeError if it does not start.
    """
    if not settings.rest_address:
        yield ""
        return
    environment = _environment(settings, grpc, os.environ)
    process, address = await _start(environment)
    environment["ZAAZ_REST_ADDRESS"] = address
    gateway = _Gateway(process, environment)
    supervisor = asyncio.create_task(gateway.supervise(), name="rest-gateway")
    try:
        yield address
    finally:
        await end(supervisor)
        await _end(gateway.process)


class _Gateway:
    """The process, and the one that follows when it dies."""

    def __init__(self, process: Process, environment: Mapping[str, str]) -> None:
        self.process = process
        self._environment = environment

    async def supervise(self) -> None:
        """Starts it again, at the same address, whenever it ends. Until cancelled."""
        delay = FIRST_RESTART_DELAY_SECONDS
        while True:
            since = time.monotonic()
            code = await self.process.wait()
            _log.error("the REST gateway ended", extra={"fields": {"code": code}})
            if time.monotonic() - since > STABLE_AFTER_SECONDS:
                delay = FIRST_RESTART_DELAY_SECONDS
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_RESTART_DELAY_SECONDS)
            with contextlib.suppress(CannotServeError, OSError):
                self.process, _ = await _start(self._environment)


async def _start(environment: Mapping[str, str]) -> tuple[Process, str]:
    """The process once it serves, and where it does."""
    process = await asyncio.create_subprocess_exec(
        *_dying_with_us(),
        *(sys.executable, "-m", "gateway"),
        stdin=DEVNULL,
        stdout=PIPE,
        # A Ctrl-C in the terminal is for the server, which then ends the gateway in order.
        start_new_session=True,
        env=environment,
    )
    try:
        line = await asyncio.wait_for(_first_line(process), START_SECONDS)
        return process, str(orjson.loads(line)["rest"])
    except (TimeoutError, ValueError, KeyError):
        await _end(process)
        text = f"the REST gateway did not start: it ended with code {process.returncode}"
        raise CannotServeError(f"{text}, and said why above") from None
    except BaseException:
        await _end(process)
        raise


async def _first_line(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


async def _end(process: Process) -> None:
    """SIGTERM, and SIGKILL when that takes too long."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _dying_with_us() -> list[str]:
    """The kernel ends it when this process dies, however it dies (Linux only)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def _environment(
    settings: Settings, grpc: Address, environment: Mapping[str, str]
) -> dict[str, str]:
    """What the gateway is told: its own settings, and what follows from the server's."""
    own = {k: v for k, v in environment.items() if v and k.startswith(GATEWAY_PREFIX)}
    inherited = {name: environment[name] for name in _INHERITED if name in environment}
    target = Address(_ANY_HOST.get(grpc.host, grpc.host), grpc.port)
    return {
        **inherited,
        **_tls(settings),
        **own,
        "ZAAZ_REST_ADDRESS": settings.rest_address,
        "ZAAZ_GRPC_TARGET": str(target),
        "ZAAZ_PLAINTEXT": settings.plaintext,
        "ZAAZ_LOG_LEVEL": settings.log_level,
    }


def _tls(settings: Settings) -> dict[str, str]:
    """The server's certificate: trusted as it is, and shown to browsers unless another is set."""
    if settings.tls_cert is None or settings.tls_key is None:
        return {}
    return {
        "ZAAZ_GRPC_CA": str(settings.tls_cert),
        "ZAAZ_GRPC_SERVER_NAME": _name_in(settings.tls_cert),
        "ZAAZ_REST_TLS_CERT": str(settings.tls_cert),
        "ZAAZ_REST_TLS_KEY": str(settings.tls_key),
    }


def _name_in(certificate: Path) -> str:
    """A DNS name that the certificate is for; "" if it is for addresses only."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found = names.value.get_values_for_type(x509.DNSName)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return ""
    return found[0].replace("*", "gateway") if found else ""
