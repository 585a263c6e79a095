"""Two servers, one of them a process of its own, on the same wallets of the same database."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import grpc
import orjson
import pytest
from zaaz.credits.v1 import credits_service_pb2 as pb

from tests.ledger.calls import PRICE, Ingest, refused, soon
from tests.serving import (
    SECRET,
    Served,
    connected,
    make_key,
    new_key,
    new_user,
    reason_of,
    usage_event,
)

DATABASE = "test_served"
MAX_TRIES = 200
"""Bound on what a caller who is told CONTENTION does about it."""


class Servers(NamedTuple):
    here: Served
    there: Served

    def __getitem__(self, number: Any) -> Any:
        return (self.here, self.there)[number % 2]


@pytest.fixture(scope="module")
async def servers(served: Served, mongo_url: str) -> AsyncIterator[Servers]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ZAAZ_")}
    environment |= {
        "ZAAZ_MONGO_URL": mongo_url,
        "ZAAZ_MONGO_DATABASE": DATABASE,
        "ZAAZ_SECRET": SECRET,
        "ZAAZ_GRPC_ADDRESS": "127.0.0.1:0",
        "ZAAZ_METRICS_ADDRESS": "",
        "ZAAZ_LOG_LEVEL": "ERROR",
    }
    command = (sys.executable, "-m", "server", "run")
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE)
    try:
        assert process.stdout is not None
        ready = orjson.loads(await soon(process.stdout.readline()))
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connected(target, served.api_key))
                for target in (served.target, ready["grpc"])
            ]
            yield Servers(*clients)
            await Ingest.close_all()
    finally:
        process.terminate()
        await soon(process.wait())


async def insist(call: Callable[[], Awaitable[Any]]) -> Any:
    """As the contract says: who is told CONTENTION asks again under the same request_id."""
    for _ in range(MAX_TRIES):
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if reason_of(error) != "CONTENTION":
                raise
    raise AssertionError(f"contended {MAX_TRIES} times")


async def insist_on_events(served: Served, *events: Any) -> list[Any]:
    return list(await insist(lambda: served.record(*events)))


class TestTwoServers:
    async def test_share_what_one_of_them_has_written(self, servers: Servers) -> None:
        user_id = await servers.here.new_wallet(5)
        await servers.there.consume(user_id, 5)
        with refused("INSUFFICIENT_CREDITS"):
            await servers.here.consume(user_id, 1)
        # What the one refused a moment ago is funded by the other.
        await servers.there.grant(user_id, 3)
        await servers.here.consume(user_id, 3)
        with refused("INSUFFICIENT_CREDITS"):
            await servers.there.consume(user_id, 1)
        await servers.here.grant(user_id, 4)
        await servers.there.consume(user_id, 4)
        await servers.here.assert_sound(user_id)

    async def test_one_request_at_both_has_one_effect_and_one_answer(
        self, servers: Servers
    ) -> None:
        user_id = await servers.here.new_wallet(1_000)
        for _ in range(10):
            request_id = new_key()

            async def call(number: int, request_id: str = request_id) -> Any:
                return await insist(lambda: servers[number].consume(user_id, 7, request_id))

            answers = await asyncio.gather(*map(call, range(8)))
            assert all(answer == answers[0] for answer in answers)
        assert (await servers.there.wallet(user_id)).credits_micros == 1_000 - 70
        await servers.here.assert_sound(user_id)

    async def test_consume_one_wallet_to_the_last_credit(self, servers: Servers) -> None:
        user_id = await servers.here.new_wallet(60)

        async def consume(number: int) -> int:
            try:
                await insist(lambda: servers[number].consume(user_id, 1))
            except grpc.aio.AioRpcError as error:
                if reason_of(error) != "INSUFFICIENT_CREDITS":
                    raise
                return 0
            return 1

        # Nobody is refused for a conflict: all of the credits are taken, and no more.
        assert sum(await asyncio.gather(*map(consume, range(100)))) == 60
        assert (await servers.there.wallet(user_id)).credits_micros == 0
        await servers.there.assert_sound(user_id)

    async def test_bill_each_event_once(self, servers: Servers) -> None:
        users = [await servers.here.new_wallet(1_000 * PRICE) for _ in range(8)]
        events = [usage_event(user_id) for user_id in users for _ in range(20)]

        async def send(number: int) -> list[Any]:
            """All of them, in parts, each sender in an order of its own."""
            turned = events[number * 7 :] + events[: number * 7]
            results = []
            for start in range(0, len(turned), 32):
                part = turned[start : start + 32]
                results += await insist_on_events(servers[number], *part)
            return results

        answers = await asyncio.gather(*map(send, range(6)))
        receipts = [result.receipt for answer in answers for result in answer]
        assert all(receipt.credits_transaction_id for receipt in receipts)
        assert sum(not receipt.duplicate for receipt in receipts) <= len(events)
        assert len({receipt.credits_transaction_id for receipt in receipts}) == len(events)
        for user_id in users:
            wallet = await servers.there.wallet(user_id)
            assert (wallet.credits_micros, wallet.sequence) == (980 * PRICE, 21)
            await servers.here.assert_sound(user_id)

    async def test_everything_at_once_on_the_same_wallets(self, servers: Servers) -> None:
        users = [await servers.here.new_wallet(1_000 * PRICE) for _ in range(4)]
        requests = [new_key() for _ in range(40)]
        events = [usage_event(users[number % 4]) for number in range(40)]

        async def work(number: int) -> None:
            for step in range(40):
                at = (step + 5 * number) % 40
                user_id, server = users[at % 4], servers[number]
                if at % 2:
                    await insist(lambda: server.consume(user_id, PRICE, requests[at]))  # noqa: B023
                else:
                    await insist_on_events(server, events[at], events[at])

        await asyncio.gather(*map(work, range(4)))
        spent = 0
        for user_id in users:
            wallet = await servers.there.wallet(user_id)
            spent += 1_000 * PRICE - wallet.credits_micros
            assert wallet.sequence == 1 + 10
            await servers.there.assert_sound(user_id)
        assert spent == 40 * PRICE

    async def test_make_one_wallet_of_one_user(self, servers: Servers) -> None:
        for _ in range(5):
            user_id = new_user()

            async def make(number: int, user_id: str = user_id) -> None:
                await insist(lambda: servers[number].new_wallet(user_id=user_id))

            await asyncio.gather(*map(make, range(8)))
            here, there = await servers.here.wallet(user_id), await servers.there.wallet(user_id)
            assert here == there

    async def test_a_writer_moves_from_one_to_the_other(self, servers: Servers) -> None:
        """The older stream is on another server, which finds out with its next frame."""
        user_id, writer = await servers.here.new_wallet(100 * PRICE), new_key()
        events = [usage_event(user_id) for _ in range(6)]
        older, _ = await Ingest.opened(servers.here, writer)
        older.frame(0, *events[:2])
        await older.answer("ack")
        newer, opened = await Ingest.opened(servers.there, writer)
        assert opened.next_offset == 2
        older.frame(2, *events[2:])
        with refused("WRITER_FENCED") as refusal:
            await older.rest()
        assert refusal.metadata == {"writer_id": writer}
        newer.frame(2, *events[2:])
        assert (await newer.answer("ack")).billed_events == 4
        back, opened = await Ingest.opened(servers.here, writer)
        assert opened.next_offset == 6
        back.frame(6, usage_event(user_id))
        assert (await back.answer("ack")).billed_events == 1
        assert (await servers.there.wallet(user_id)).credits_micros == 93 * PRICE
        await servers.here.assert_sound(user_id)

    async def test_page_tokens_of_one_are_good_at_the_other(self, servers: Servers) -> None:
        user_id = await servers.here.new_wallet(5)
        await servers.there.consume(user_id, 1)
        request = pb.ListCreditsTransactionsRequest(user_id=user_id, page_size=1)
        page = await servers.here.credits.ListCreditsTransactions(request)
        request.page_token = page.next_page_token
        rest = await servers.there.credits.ListCreditsTransactions(request)
        assert [row.sequence for row in rest.credits_transactions] == [1]


async def test_a_key_of_one_opens_the_other(servers: Servers, mongo_url: str) -> None:
    key = await make_key(mongo_url, DATABASE, "partner", ["wallet.read"])
    user_id = await servers.here.new_wallet(5)
    async with connected(servers.there.target, key) as partner:
        assert (await partner.wallet(user_id)).credits_micros == 5
