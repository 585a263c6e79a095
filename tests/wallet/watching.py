"""Watching wallets: over the contract, and watches of their own on a real database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from zaaz.wallet.v1 import wallet_service_pb2 as pb
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from server.kernel.clock import Clock, system_clock
from server.kernel.paging import PageTokens
from server.kernel.tasks import end
from server.ledger.model import Wallet
from server.ledger.reader import LedgerReader
from server.ledger.store import LedgerStore
from server.mongo.database import Database
from server.wallet.resume_tokens import ResumeTokens
from server.wallet.watches import WalletWatches
from tests.ledger.calls import soon
from tests.ledger.stores import Nobody
from tests.serving import SECRET, Served

SWEEP_SECONDS = 0.02


class Watch:
    """One WatchWallet call, read by hand."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.token = ""

    async def next(self) -> pb.WatchWalletResponse:
        """The next message."""
        response = await soon(self.call.read())
        assert response is not grpc.aio.EOF
        self.token = response.resume_token
        assert isinstance(response, pb.WatchWalletResponse)
        return response

    async def changes_to(self, sequence: int) -> list[pb.WalletChange]:
        """Changes until the one that ends at `sequence`; bookmarks are passed over."""
        changes: list[pb.WalletChange] = []
        while not changes or changes[-1].sequence < sequence:
            response = await self.next()
            if response.HasField("change"):
                changes.append(response.change)
        assert changes[-1].sequence == sequence
        return changes


@asynccontextmanager
async def watching(served: Served, user_id: str, resume_token: str = "") -> AsyncIterator[Watch]:
    """A call that runs, and is cancelled in the end."""
    async with grpc.aio.insecure_channel(served.target) as channel:
        stub: Any = WalletServiceStub(channel)
        call = stub.WatchWallet(
            pb.WatchWalletRequest(user_id=user_id, resume_token=resume_token),
            metadata=(("authorization", f"Bearer {served.api_key}"),),
        )
        try:
            yield Watch(call)
        finally:
            call.cancel()


def assert_ranges(changes: Iterable[pb.WalletChange], after: int, through: int) -> None:
    """Nothing is missed and nothing is repeated."""
    for change in changes:
        assert change.first_sequence == after + 1
        assert change.sequence >= change.first_sequence
        after = change.sequence
    assert after == through


class CountingStore:
    """The real store, with how often it was asked, and whether it is to fail."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self.readings = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.reading = asyncio.Event()
        self._read = asyncio.Event()

    async def read_again(self) -> None:
        """Returns once somebody has read from now on."""
        self._read.clear()
        await soon(self._read.wait())

    async def wallets(self, user_ids: Iterable[str]) -> Mapping[str, Wallet]:
        self.readings += 1
        self.reading.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        found = await self._store.wallets(user_ids)
        self._read.set()
        return found

    async def versions(self, user_ids: Iterable[str]) -> Mapping[str, int]:
        return await self._store.versions(user_ids)


class Watches:
    """WalletWatches on a database that a server elsewhere writes to.

    Nobody tells them anything unless a test does (`heard`): what they find, they
    find by sweeping.
    """

    def __init__(self, database: Database, clock: Clock = system_clock, **settings: Any) -> None:
        self.store = CountingStore(LedgerStore(database, Nobody()))
        self.heard: dict[str, Callable[[], None]] = {}
        self.tokens = ResumeTokens(PageTokens(SECRET), clock)
        self.draining = asyncio.Event()
        settings = {"sweep_seconds": SWEEP_SECONDS, **settings}
        reader = LedgerReader(database, clock)
        self.watches = WalletWatches(
            self.store, reader.as_of_now, self._listen, self.tokens, clock, **settings
        )

    @asynccontextmanager
    async def running(self, *, sweeping: bool = True) -> AsyncIterator[None]:
        loops = [self.watches.read(), self.watches.end_with(self.draining)]
        if sweeping:
            loops.append(self.watches.sweep())
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                await end(task)

    def follow(self, user_id: str, resume_token: str = "") -> "Follower":
        return Follower(self.watches, user_id, resume_token)

    def _listen(self, user_id: str, heard: Callable[[], None]) -> Callable[[], None]:
        assert user_id not in self.heard
        self.heard[user_id] = heard
        return lambda: self.heard.pop(user_id, None) and None


class Follower:
    """One watcher. While its gate is shut, it takes nothing, as a slow reader."""

    def __init__(self, watches: WalletWatches, user_id: str, resume_token: str) -> None:
        self.told: list[pb.WatchWalletResponse] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(watches.follow(user_id, resume_token, self._take))

    @property
    def changes(self) -> list[pb.WalletChange]:
        return [response.change for response in self.told if response.HasField("change")]

    async def _take(self, response: pb.WatchWalletResponse) -> None:
        self.told.append(response)
        self._changed.set()
        await self.gate.wait()

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns once it holds; raises what ended the watch before."""

        async def wait() -> None:
            while not holds():
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({changed, self.task}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self.task.done():
                    self.task.result()

        await soon(wait())

    async def until_told(self, count: int) -> None:
        await self.until(lambda: len(self.told) >= count)

    async def until_at(self, sequence: int) -> None:
        await self.until(lambda: self.changes and self.changes[-1].sequence >= sequence)

    async def leave(self) -> None:
        await end(self.task)
