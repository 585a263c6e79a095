"""Watchers while their server dies under them: nothing missed, nothing twice.

The server that is watched is killed at random moments; its database and the
server that commits live on, so that nothing waits for a dead transaction's
locks. WATCH_KILLS=100 for the long run; CRASH_SEED repeats one.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from zaaz.ledger.v1.credits_transaction_pb2 import CreditsTransaction
from zaaz.wallet.v1 import wallet_service_pb2 as pb
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub
from zaaz_client import WalletChanged, WalletEvent, WalletSnapshot, WatchSettings, ZaazClient

from server.kernel.tasks import end
from tests.crash.conftest import OwnServer
from tests.crash.killer import Killer, Victim
from tests.run.command import Command
from tests.run.processes import until
from tests.serving import Served, connected, serving

KILLS = int(os.environ.get("WATCH_KILLS", "20"))
USERS = 3
FUNDS = 10**12
MAX_SPENT = 1_000
SPEND_PAUSE_SECONDS = 0.03
MAX_ALIVE_SECONDS = 0.3
"""Some servers are killed so soon after their start, whether anyone has found them or not."""
MAX_TELLING_SECONDS = 0.8
"""The others after they have begun to tell, and so much later at most."""
KILL_SECONDS = 60.0
"""Bound on one kill and start, on a busy machine."""
CATCH_UP_SECONDS = 60.0
PROGRESS = 300
"""Transactions told, to all watchers together, for each blow of the shorter test."""
RAW_PAUSE_SECONDS = 0.05

SETTINGS = WatchSettings(min_backoff_seconds=0.02, max_backoff_seconds=0.2)


@dataclass
class Told:
    """What one watcher was told of one wallet, over all its streams."""

    user_id: str
    ranges: list[tuple[int, int]] = field(default_factory=list)
    balances: dict[int, int] = field(default_factory=dict)
    snapshots: int = 0
    streams: int = 1

    @property
    def sequence(self) -> int:
        return self.ranges[-1][1] if self.ranges else 0

    def snapshot(self, sequence: int, credits_micros: int) -> None:
        self.snapshots += 1
        self.ranges.append((1, sequence))
        self.balances[sequence] = credits_micros

    def change(self, change: "pb.WalletChange | WalletChanged") -> None:
        self.ranges.append((change.first_sequence, change.sequence))
        self.balances[change.sequence] = change.credits_micros

    def assert_right(self, entries: Sequence[CreditsTransaction]) -> None:
        """Every transaction once, and every balance as the ledger has it."""
        assert self.snapshots == 1
        known = 0
        for first, last in self.ranges:
            assert first == known + 1, self.ranges
            assert last >= first
            known = last
        assert known == len(entries)
        for sequence, credits_micros in self.balances.items():
            assert entries[sequence - 1].balance_after_micros == credits_micros


async def watch(client: ZaazClient, told: Told) -> None:
    """As a partner does with the SDK."""
    async with client.watch_wallet(told.user_id, settings=SETTINGS) as events:
        async for event in events:
            _take(told, event)


async def watch_in_pieces(client: ZaazClient, told: Told, rng: random.Random) -> None:
    """As a partner whose own process ends now and then, and kept the token."""
    token = ""
    while True:
        left = rng.randint(1, 10)
        async with client.watch_wallet(told.user_id, token, settings=SETTINGS) as events:
            async for event in events:
                _take(told, event)
                token = events.resume_token
                left -= 1
                if not left:
                    break
        told.streams += 1


def _take(told: Told, event: WalletEvent) -> None:
    match event:
        case WalletSnapshot(wallet=wallet):
            told.snapshot(wallet.sequence, wallet.credits_micros)
        case WalletChanged():
            told.change(event)


async def watch_raw(server: Command, key: str, told: Told) -> None:
    """Without the SDK, which would put right what the server tells wrong."""
    token = ""
    metadata = (("authorization", f"Bearer {key}"),)
    while True:
        options = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50))
        async with grpc.aio.insecure_channel(server.ready["grpc"], options=options) as channel:
            stub: Any = WalletServiceStub(channel)
            call = stub.WatchWallet(
                pb.WatchWalletRequest(user_id=told.user_id, resume_token=token), metadata=metadata
            )
            try:
                async for response in call:
                    if response.HasField("snapshot"):
                        told.snapshot(response.snapshot.sequence, response.snapshot.credits_micros)
                    elif response.HasField("change"):
                        told.change(response.change)
                    token = response.resume_token
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                call.cancel()
        told.streams += 1
        await asyncio.sleep(RAW_PAUSE_SECONDS)


async def spend(served: Served, users: Sequence[str], rng: random.Random) -> None:
    """Until cancelled: one at a time, or several at once. What is refused is not asked again."""

    async def consume() -> None:
        with suppress(grpc.aio.AioRpcError):
            await served.consume(rng.choice(users), rng.randint(1, MAX_SPENT))

    while True:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(rng.choice((1, 1, 1, 10))):
                tasks.create_task(consume())
        await asyncio.sleep(rng.uniform(0, SPEND_PAUSE_SECONDS))


async def kill_again_and_again(
    server: Command, rng: random.Random, kills: int, progress: Callable[[], int]
) -> None:
    for number in range(kills):
        before = progress()
        if rng.random() < 0.7:
            await until(lambda before=before: progress() > before, CATCH_UP_SECONDS)  # type: ignore[misc]
            await asyncio.sleep(rng.uniform(0, MAX_TELLING_SECONDS))
        else:
            await asyncio.sleep(rng.uniform(0, MAX_ALIVE_SECONDS))
        sys.stdout.write(f"kill -9 number {number + 1} at {progress()}\n")
        async with asyncio.timeout(KILL_SECONDS):
            await server.kill()
            await server.start()


@asynccontextmanager
async def watchers(
    server: Command, key: str, users: Sequence[str], rng: random.Random
) -> AsyncIterator[list[Told]]:
    """Three kinds for each wallet, until the block is left. What ends one is raised."""
    async with ZaazClient(server.ready["grpc"], key) as client:
        told: list[Told] = []
        tasks: list[asyncio.Task[None]] = []
        for user_id in users:
            told += [Told(user_id) for _ in range(3)]
            whole, pieces, raw = told[-3:]
            for work in (
                watch(client, whole),
                watch_in_pieces(client, pieces, rng),
                watch_raw(server, key, raw),
            ):
                tasks.append(asyncio.create_task(work))
        try:
            yield told
        finally:
            failures = [task.exception() for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert failures == []


async def transactions(served: Served, user_id: str) -> list[CreditsTransaction]:
    """All of a wallet's, once the connection has got over the last blow."""
    async with asyncio.timeout(CATCH_UP_SECONDS):
        while True:
            with suppress(grpc.aio.AioRpcError):
                return await served.transactions(user_id)
            await asyncio.sleep(RAW_PAUSE_SECONDS)


async def all_books(served: Served, users: Sequence[str]) -> dict[str, list[CreditsTransaction]]:
    return {user_id: await transactions(served, user_id) for user_id in users}


async def watch_through(
    server: Command,
    key: str,
    writer: Served,
    rng: random.Random,
    blows: Callable[[Callable[[], int]], Awaitable[None]],
) -> None:
    """Watchers on `server`, spending through `writer`, while `blows`, given the progress, runs."""
    users = [await writer.new_wallet(FUNDS) for _ in range(USERS)]
    async with watchers(server, key, users, rng) as told:
        await until(lambda: all(one.ranges for one in told), CATCH_UP_SECONDS)
        start = sum(one.sequence for one in told)
        spending = asyncio.create_task(spend(writer, users, rng))
        try:
            await blows(lambda: sum(one.sequence for one in told) - start)
        finally:
            await end(spending)
        async with asyncio.timeout(CATCH_UP_SECONDS):
            # What was asked for last may come to its commit after nobody waits for it any more.
            books = await all_books(writer, users)
            while any(one.sequence != len(books[one.user_id]) for one in told):
                await asyncio.sleep(RAW_PAUSE_SECONDS)
                books = await all_books(writer, users)
    sys.stdout.write(f"{sum(map(len, books.values()))} transactions in")
    sys.stdout.write(f" {sum(len(one.ranges) for one in told)} messages to {len(told)} watchers\n")
    for one in told:
        one.assert_right(books[one.user_id])


async def test_through_kills_of_the_server_that_is_watched(
    own_server: OwnServer, mongo_url: str, rng: random.Random
) -> None:
    server, key, database = own_server

    async def blows(progress: Callable[[], int]) -> None:
        await kill_again_and_again(server, rng, KILLS, progress)

    async with serving(mongo_url, database) as writer:
        await watch_through(server, key, writer, rng, blows)


async def test_through_kills_of_all_there_is(
    server: Command, rng: random.Random, rounds: int
) -> None:
    """The server commits too, and its database dies with it, or by itself."""
    killer = Killer(server, rng, rng.sample(list(Victim), len(Victim)))

    async def blows(progress: Callable[[], int]) -> None:
        await killer.run(progress, PROGRESS * rounds, rounds)

    key = server.ready["api_key"]
    async with connected(server.ready["grpc"], key) as writer:
        await watch_through(server, key, writer, rng, blows)
    assert killer.struck == rounds
