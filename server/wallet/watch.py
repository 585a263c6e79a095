"""One wallet's watchers in this process: what they share, and what each is told next.

Nothing is queued. The watch has the wallet's newest state, a watcher knows how
far it has been told; whoever is slow finds one change that spans all it missed.
"""

import asyncio
from collections.abc import Callable

from zaaz.ledger.v1 import wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2 as pb

from server.kernel.errors import DomainError


class WalletWatch:
    """Shared by all watchers of one wallet; torn down when the last has left."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.watchers = 0
        self.stop_listening: Callable[[], None] = lambda: None
        self.version = -1
        """The wallet's version when it was last read; -1 before."""
        self.bookmarks = 0
        """How often watchers were to be told that nothing has changed."""
        self.bookmark_due = 0.0
        """When they are next, in the event loop's time."""
        self.failure: Callable[[], DomainError] | None = None
        """Makes what everyone's stream ends with; None while all is well."""
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._wallet = wallet_pb2.Wallet()
        self._token = ""
        self._change = pb.WatchWalletResponse()
        self._reading: asyncio.Future[Exception | None] | None = None

    @property
    def sequence(self) -> int:
        """Of the wallet's last transaction, as far as it is known here."""
        return self._wallet.sequence

    # What its reader does

    def take(self, wallet: wallet_pb2.Wallet, version: int, token: str) -> None:
        """Take the wallet's newest state, read just now, with the token for what comes after."""
        self._wallet, self.version, self._token = wallet, version, token
        self._change = pb.WatchWalletResponse()

    def bookmark(self, token: str) -> None:
        """Have everyone told that nothing has changed."""
        self.bookmarks += 1
        self._token = token
        self._change = pb.WatchWalletResponse()

    def take_waiting(self) -> "list[asyncio.Future[None]]":
        """Those who wait for news: resolved, they look again."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def begin_reading(self) -> "asyncio.Future[Exception | None] | None":
        """Resolves what those wait for who asked before now; later ones wait for the next."""
        reading, self._reading = self._reading, None
        return reading

    # What its watchers do

    async def news(self) -> None:
        """Wait until there is something to look at."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)

    def next_reading(self) -> "asyncio.Future[Exception | None]":
        """Done once the wallet was read, begun from now on; why that failed, if it did."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_future()
        return self._reading

    def snapshot(self) -> pb.WatchWalletResponse:
        """The wallet as it was last read."""
        return pb.WatchWalletResponse(resume_token=self._token, snapshot=self._wallet)

    def change_since(self, sequence: int) -> pb.WatchWalletResponse:
        """All that came after `sequence`. One message for all who stand there."""
        if self._change.change.first_sequence != sequence + 1:
            wallet = self._wallet
            change = pb.WalletChange(
                first_sequence=sequence + 1,
                sequence=wallet.sequence,
                credits_micros=wallet.credits_micros,
                held_micros=wallet.held_micros,
                available_micros=wallet.available_micros,
                debt_micros=wallet.debt_micros,
                updated_time=wallet.updated_time,
            )
            self._change = pb.WatchWalletResponse(resume_token=self._token, change=change)
        return self._change

    def nothing_new(self) -> pb.WatchWalletResponse:
        """That the wallet stands where it stood, with a fresh token."""
        bookmark = pb.WatchBookmark(sequence=self.sequence)
        return pb.WatchWalletResponse(resume_token=self._token, bookmark=bookmark)
