"""The connection that new calls go over, replaced when its certificates are."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc

from zaaz_client.tls import TlsSource

_log = logging.getLogger("zaaz_client")


class Connection:
    """One channel of gRPC's, closed when it is retired and its last call has ended.

    One that is never retired does without counting its calls.
    """

    def __init__(self, channel: grpc.aio.Channel, may_retire: bool) -> None:
        self.channel = channel
        self._may_retire = may_retire
        self._calls = 0
        self._closing: asyncio.Task[None] | None = None
        self._is_retired = False

    def carry(self, call: grpc.aio.Call) -> None:
        """Count a call that has begun."""
        if self._may_retire:
            self._calls += 1
            call.add_done_callback(self._over)

    def retire(self) -> None:
        """No more calls come."""
        self._is_retired = True
        self._close_if_idle()

    @property
    def is_closed(self) -> bool:
        """Whether it was retired and is gone."""
        return self._closing is not None and self._closing.done()

    async def close(self) -> None:
        """Close it at once; what it still carries is cancelled."""
        await self.channel.close()

    def _over(self, _: Any) -> None:
        self._calls -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._is_retired and not self._calls and self._closing is None:
            # The call that has just ended is yet to be read.
            self._closing = asyncio.get_running_loop().create_task(self.close())


class Connections:
    """The newest connection, and older ones that still carry calls.

    `open_` makes a channel with credentials, or None for one without encryption.
    Raises OSError or ValueError for files that cannot be used.
    """

    def __init__(
        self,
        open_: Callable[[grpc.ChannelCredentials | None], grpc.aio.Channel],
        tls: TlsSource | None,
    ) -> None:
        self._open = open_
        self._tls = tls
        self._newest = Connection(open_(None if tls is None else tls.load()), tls is not None)
        self._retired: list[Connection] = []

    def newest(self) -> Connection:
        """Where the next call goes."""
        if self._tls is not None and self._tls.is_changed:
            self._renew(self._tls)
        return self._newest

    async def close(self) -> None:
        """Close all; open calls are cancelled."""
        for connection in (*self._retired, self._newest):
            await connection.close()

    def _renew(self, tls: TlsSource) -> None:
        try:
            credentials = tls.load()
        except (OSError, ValueError) as error:
            _log.warning("changed certificates cannot be used, going on with the last: %s", error)
            return
        if credentials is None:
            return
        _log.info("certificates have changed: new calls go over a new connection")
        retired, self._newest = self._newest, Connection(self._open(credentials), True)
        self._retired = [one for one in self._retired if not one.is_closed]
        self._retired.append(retired)
        retired.retire()
