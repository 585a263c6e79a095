"""Two servers write the same wallets at once: each is as right as if it were alone.

A caller may be told CONTENTION, and asks again with the same id; nothing else
may come of two processes that meet.
"""

import asyncio
import random
from collections.abc import Awaitable
from functools import partial
from typing import Any

from zaaz.credits.v1 import credits_service_pb2 as credits_pb
from zaaz.credits.v1 import usage_service_pb2 as pb
from zaaz.ledger.v1 import wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2 as wallet_pb

from tests.ledger.calls import PRICE, Ingest
from tests.races.callers import MAX_TRIES, outcome, persist, verified
from tests.races.conftest import Twins
from tests.serving import Served, error_info, new_key, new_user, usage_event

FUNDS = 10_000 * PRICE
WORKERS = 8
"""Calls that each process has running at once."""


async def both_ways(twins: Twins, calls: list[Any]) -> list[tuple[Any, Any]]:
    """Each call made of both servers, in orders of their own; what came of it at each."""
    answers: list[dict[int, Any]] = [{}, {}]

    async def work(number: int, waiting: list[int]) -> None:
        while waiting:
            place = waiting.pop()
            answers[number][place] = await persist(partial(calls[place], twins[number]))

    workers = []
    for number in (0, 1):
        waiting = list(range(len(calls)))
        random.Random(number).shuffle(waiting)
        workers += [work(number, waiting) for _ in range(WORKERS)]
    async with asyncio.timeout(60):
        await asyncio.gather(*workers)
    return [(answers[0][place], answers[1][place]) for place in range(len(calls))]


def consumption(user_id: str, micros: int) -> Any:
    request_id = new_key()

    def call(served: Served) -> Awaitable[Any]:
        return served.consume(user_id, micros, request_id)

    return call


def batch(user_ids: list[str], micros: int) -> Any:
    request = credits_pb.BatchConsumeCreditsRequest(
        requests=[
            credits_pb.ConsumeCreditsRequest(
                request_id=new_key(), user_id=user_id, credits_micros=micros
            )
            for user_id in user_ids
        ]
    )

    def call(served: Served) -> Any:
        return served.credits.BatchConsumeCredits(request)

    return call


def recording(*events: pb.UsageEvent) -> Any:
    request = pb.RecordUsageRequest(request_id=new_key(), events=events)

    def call(served: Served) -> Any:
        return served.usage.RecordUsage(request)

    return call


class TestSameWork:
    async def test_every_request_takes_effect_once(self, twins: Twins) -> None:
        """The same requests at both servers: consumption, batches and usage on three wallets."""
        users = [await twins.here.new_wallet(FUNDS) for _ in range(3)]
        events = [usage_event(users[place % 3]) for place in range(30)]
        consumptions = [consumption(users[place % 3], 10) for place in range(150)]
        batches = [batch(users, 100) for _ in range(5)]
        recordings = [recording(*events[place : place + 6]) for place in range(0, 30, 3)]
        answers = await both_ways(twins, [*consumptions, *batches, *recordings])

        for here, there in answers[:155]:
            assert here == there
            assert not isinstance(here, str)
        for answer in (one for pair in answers[150:] for one in pair):
            assert not any(result.HasField("error") for result in answer.results)
        receipts = [
            result.receipt for pair in answers[155:] for one in pair for result in one.results
        ]
        assert len({receipt.credits_transaction_id for receipt in receipts}) == 30
        assert sum(not receipt.duplicate for receipt in receipts) <= 30
        for user_id in users:
            wallet = await verified(twins.there, user_id)
            assert wallet == await twins.here.wallet(user_id)
            assert wallet.credits_micros == FUNDS - 50 * 10 - 5 * 100 - 10 * PRICE
            assert wallet.sequence == 1 + 50 + 5 + 10

    async def test_wallets_are_made_once(self, twins: Twins) -> None:
        users = [new_user() for _ in range(30)]
        created = await both_ways(twins, [_creation(user_id) for user_id in users])
        assert all(here.wallet.id == there.wallet.id for here, there in created)

    async def test_usage_keys_with_other_payloads_are_told(self, twins: Twins) -> None:
        user_id = await twins.here.new_wallet(FUNDS)
        key = new_key()
        calls = [
            recording(usage_event(user_id, usage_key=key, input_tokens=1_000 + place))
            for place in range(6)
        ]
        answers = [one for pair in await both_ways(twins, calls) for one in pair]
        billed = [a for a in answers if a.results[0].HasField("receipt")]
        others = [a for a in answers if a.results[0].HasField("error")]
        assert len({a.results[0].receipt.credits_transaction_id for a in billed}) == 1
        reasons = {str(error_info(a.results[0].error.error).reason) for a in others}
        assert (len(others), reasons) == (10, {"USAGE_KEY_REUSED"})
        assert (await verified(twins.here, user_id)).sequence == 2


def _creation(user_id: str) -> Any:
    request = wallet_pb.CreateWalletRequest(request_id=new_key(), user_id=user_id)

    def call(served: Served) -> Any:
        return served.wallets.CreateWallet(request)

    return call


class TestOneWallet:
    async def test_nobody_is_short_while_funds_last(self, twins: Twins) -> None:
        user_id = await twins.here.new_wallet(120)
        calls = [persist(consumption_of(twins, place, user_id)) for place in range(120)]
        answers = await asyncio.gather(*calls)
        assert [answer for answer in answers if isinstance(answer, str)] == []
        assert (await verified(twins.here, user_id)).credits_micros == 0
        for served in twins:
            assert await persist(partial(served.consume, user_id, 1)) == "INSUFFICIENT_CREDITS"

    async def test_one_wins_the_last_credit(self, twins: Twins) -> None:
        user_id = await twins.here.new_wallet(1)
        calls = [persist(consumption_of(twins, place, user_id)) for place in range(100)]
        answers = await asyncio.gather(*calls)
        assert answers.count("INSUFFICIENT_CREDITS") == 99
        assert (await verified(twins.there, user_id)).sequence == 2

    async def test_a_grant_of_the_other_server_is_seen(self, twins: Twins) -> None:
        """A cached wallet that says zero is no reason to refuse."""
        user_id = await twins.here.new_wallet(1)
        for _ in range(5):
            for served, other in (twins, twins[::-1]):
                await served.consume(user_id, 1)
                assert await outcome(served.consume(user_id, 1)) == "INSUFFICIENT_CREDITS"
                await other.grant(user_id, 1)
                await served.consume(user_id, 1)
                await other.grant(user_id, 1)
        assert (await verified(twins.here, user_id)).credits_micros == 1

    async def test_its_settings_change_beside_consumption(self, twins: Twins) -> None:
        user_id = await twins.here.new_wallet(FUNDS)
        changes = [persist(change_of(twins, place, user_id, place + 1)) for place in range(20)]
        calls = [persist(consumption_of(twins, place, user_id)) for place in range(60)]
        answers = await asyncio.gather(*changes, *calls)
        assert [answer for answer in answers if isinstance(answer, str)] == []
        etags = [int(answer.wallet.etag) for answer in answers[:20]]
        assert len(set(etags)) == 20
        wallet = await verified(twins.here, user_id)
        assert wallet.credits_micros == FUNDS - 60
        assert int(wallet.etag) == max(etags)
        last = answers[etags.index(max(etags))]
        assert wallet.low_balance_threshold_micros == last.wallet.low_balance_threshold_micros


def consumption_of(twins: Twins, place: int, user_id: str) -> Any:
    """One micro-credit, at one server or the other."""
    request_id = new_key()
    return lambda: twins[place % 2].consume(user_id, 1, request_id)


def change_of(twins: Twins, place: int, user_id: str, threshold_micros: int) -> Any:
    request = wallet_pb.UpdateWalletRequest(
        request_id=new_key(),
        wallet=wallet_pb2.Wallet(user_id=user_id, low_balance_threshold_micros=threshold_micros),
    )
    return lambda: twins[place % 2].wallets.UpdateWallet(request)


def send(stream: Ingest, start: int, events: list[pb.UsageEvent], size: int) -> None:
    for offset in range(start, len(events), size):
        stream.frame(offset, *events[offset : offset + size])


class TestWriters:
    async def test_one_opened_here_and_there_bills_each_event_once(self, twins: Twins) -> None:
        """Each stream is overtaken by one at the other server while its frames are on their way."""
        user_id, writer_id = await twins.here.new_wallet(FUNDS), new_key()
        size, rounds = 20, 12
        sent = [usage_event(user_id) for _ in range(size * 10)]
        offsets = []
        for number in range(rounds):
            stream, opened = await Ingest.opened(twins[number % 2], writer_id)
            offsets.append(opened.next_offset)
            send(stream, opened.next_offset, sent, size)
            if number % 2:
                # The next one overtakes it a call's time later.
                await twins.there.wallet(user_id)
        assert offsets == sorted(offsets)
        assert all(offset % size == 0 for offset in offsets)
        # Frames of those that were overtaken may still be in the way of the last.
        for _ in range(MAX_TRIES):
            stream, opened = await Ingest.opened(twins.here, writer_id)
            if opened.next_offset == len(sent):
                break
            send(stream, opened.next_offset, sent, size)
            stream.end()
            await stream.rest()
        assert opened.next_offset == len(sent)
        wallet = await verified(twins.there, user_id)
        assert wallet.credits_micros == FUNDS - len(sent) * PRICE

    async def test_the_older_is_fenced_by_its_next_frame(self, twins: Twins) -> None:
        user_id, writer_id = await twins.here.new_wallet(FUNDS), new_key()
        older, _ = await Ingest.opened(twins.here, writer_id)
        older.frame(0, usage_event(user_id))
        await older.answer("ack")
        newer, opened = await Ingest.opened(twins.there, writer_id)
        assert opened.next_offset == 1
        late = usage_event(user_id)
        older.frame(1, late)
        assert await outcome(older.rest()) == "WRITER_FENCED"
        newer.frame(1, late)
        assert (await newer.answer("ack")).billed_events == 1
        assert (await verified(twins.here, user_id)).credits_micros == FUNDS - 2 * PRICE
