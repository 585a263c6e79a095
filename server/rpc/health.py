"""grpc.health.v1: whether this server should be sent calls."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

CHECK_INTERVAL_SECONDS: Final = 1.0
CHECK_TIMEOUT_SECONDS: Final = 2.0
"""A check that takes longer has failed."""

OVERALL: Final = ""
"""The name that stands for the whole server."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[bool]]
"""Whether what the server depends on can be reached."""


class Health:
    """The health of the whole and of every service: they share one database, so one state."""

    def __init__(self, services: Sequence[str]) -> None:
        self.servicer = HealthServicer()
        self._names = (OVERALL, *services)
        self._serving: bool | None = None

    async def set(self, *, serving: bool) -> None:
        """Tell everyone who asks or watches. Ignored while draining."""
        if serving is self._serving:
            return
        self._serving = serving
        _log.info("health", extra={"fields": {"serving": serving}})
        for name in self._names:
            await self.servicer.set(name, _SERVING if serving else _NOT_SERVING)

    async def drain(self) -> None:
        """NOT_SERVING for good."""
        await self.servicer.enter_graceful_shutdown()

    async def ask(self, check: Check) -> None:
        """Say what `check` finds. One that raises or hangs has failed."""
        await self.set(serving=await _passes(check))

    async def watch(self, check: Check, interval_seconds: float = CHECK_INTERVAL_SECONDS) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.ask(check)


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            return await check()
    except Exception as error:  # noqa: BLE001
        _log.warning("health check failed", extra={"fields": {"error": type(error).__name__}})
        return False
