"""Many callers of one server at once: the books are exact whoever comes first."""

import asyncio

import grpc
from zaaz.credits.v1 import credits_service_pb2 as credits_pb
from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.conftest import MongoClient
from tests.ledger.calls import PRICE, Ingest, refused
from tests.races.callers import contended, outcome, outcomes, verified
from tests.serving import Served, error_info, new_key, new_user, usage_event

SERVED = "test_served"
FUNDS = 10_000 * PRICE


class TestOneWallet:
    async def test_one_of_200_wins_the_last_credit(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000_000)
        calls = [served.consume(user_id, 1_000_000) for _ in range(200)]
        answers = await outcomes(*calls)
        (won,) = [answer for answer in answers if not isinstance(answer, str)]
        assert answers.count("INSUFFICIENT_CREDITS") == 199
        assert won.wallet.credits_micros == 0
        assert (await verified(served, user_id)).sequence == 2

    async def test_64_all_succeed_while_funds_last(self, served: Served) -> None:
        amounts = range(1, 65)
        user_id = await served.new_wallet(sum(amounts))
        answers = await outcomes(*(served.consume(user_id, micros) for micros in amounts))
        assert [answer.transaction.credits_micros for answer in answers] == list(amounts)
        assert sorted(answer.transaction.sequence for answer in answers) == list(range(2, 66))
        assert (await verified(served, user_id)).credits_micros == 0
        assert await outcome(served.consume(user_id, 1)) == "INSUFFICIENT_CREDITS"

    async def test_every_credit_is_spent_once(self, served: Served) -> None:
        """100 in grants that come meanwhile; whoever is refused leaves nothing behind."""
        user_id = await served.new_wallet(50)
        grants = [served.grant(user_id, 5) for _ in range(10)]
        consumed = [served.consume(user_id, 7) for _ in range(40)]
        answers = (await outcomes(*grants, *consumed))[10:]
        won = sum(1 for answer in answers if not isinstance(answer, str))
        assert answers.count("INSUFFICIENT_CREDITS") == 40 - won
        assert 7 <= won <= 14
        assert (await verified(served, user_id)).credits_micros == 100 - 7 * won


class TestDuplicates:
    async def test_50_of_one_request_id_have_one_effect_and_one_answer(
        self, served: Served
    ) -> None:
        user_id, request_id = await served.new_wallet(10), new_key()
        answers = await outcomes(*(served.consume(user_id, 3, request_id) for _ in range(50)))
        assert all(answer == answers[0] for answer in answers)
        assert answers[0].wallet.credits_micros == 7
        assert (await verified(served, user_id)).credits_micros == 7

    async def test_of_two_payloads_under_one_request_id_one_counts(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(100), new_key()
        calls = [served.consume(user_id, 1 + place % 2, request_id) for place in range(20)]
        answers = await outcomes(*calls)
        won = {a.transaction.credits_micros for a in answers if not isinstance(a, str)}
        assert len(won) == 1
        assert answers.count("REQUEST_ID_REUSED") == 10
        assert (await verified(served, user_id)).credits_micros == 100 - won.pop()

    async def test_in_one_batch_of_consumptions(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(10), new_key()
        request = credits_pb.ConsumeCreditsRequest(
            request_id=request_id, user_id=user_id, credits_micros=3
        )
        answer = await served.credits.BatchConsumeCredits(
            credits_pb.BatchConsumeCreditsRequest(requests=[request] * 20)
        )
        assert len({result.response.transaction.id for result in answer.results}) == 1
        assert (await verified(served, user_id)).credits_micros == 7

    async def test_a_wallet_is_made_once(self, served: Served) -> None:
        user_id = new_user()
        await asyncio.gather(*(served.new_wallet(1, user_id) for _ in range(20)))
        assert (await verified(served, user_id)).credits_micros == 20

    async def test_usage_that_comes_by_all_ways_at_once_is_billed_once(
        self, served: Served
    ) -> None:
        """The same events in every order, in calls, within one call, and by two streams."""
        users = [await served.new_wallet(FUNDS) for _ in range(3)]
        events = [usage_event(users[place % 3]) for place in range(60)]
        streams = [(await Ingest.opened(served, new_key()))[0] for _ in range(2)]
        for stream in streams:
            for offset in range(0, 60, 20):
                stream.frame(offset, *events[offset : offset + 20])
            stream.end()
        turned = [events[place:] + events[:place] for place in range(0, 60, 6)]
        calls = asyncio.gather(*(served.record(*some, *some[:9]) for some in turned))
        by_streams = [answer.ack for stream in streams for answer in await stream.rest()]
        receipts = [result.receipt for results in await calls for result in results]
        assert all(receipt.credits_transaction_id for receipt in receipts)
        assert len({receipt.credits_transaction_id for receipt in receipts}) == 60
        billed = sum(not receipt.duplicate for receipt in receipts)
        billed += sum(ack.billed_events for ack in by_streams)
        assert billed == 60
        for user_id in users:
            assert (await verified(served, user_id)).credits_micros == FUNDS - 20 * PRICE


class TestContention:
    """Another's transaction holds the wallet, so that every try of the server conflicts."""

    async def test_is_told_to_the_contended_wallets_callers_only(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        users = [await served.new_wallet(100) for _ in range(8)]
        async with contended(mongo_client, SERVED, users[0]):
            answers = await outcomes(
                *(served.consume(users[place % 8], 1, f"{users[0]}-{place}") for place in range(64))
            )
        told = {place: answer for place, answer in enumerate(answers) if isinstance(answer, str)}
        assert told == dict.fromkeys(range(0, 64, 8), "CONTENTION")
        assert (await verified(served, users[0])).credits_micros == 100
        for user_id in users[1:]:
            assert (await verified(served, user_id)).credits_micros == 92
        again = await outcomes(
            *(served.consume(users[0], 1, f"{users[0]}-{place}") for place in range(0, 64, 8))
        )
        assert not any(isinstance(answer, str) for answer in again)
        assert (await verified(served, users[0])).credits_micros == 92

    async def test_is_no_want_of_credits_and_can_be_retried(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        user_id = await served.new_wallet(1)
        async with contended(mongo_client, SERVED, user_id):
            with refused("CONTENTION") as refusal:
                await served.consume(user_id, 1)
            assert refusal.code is grpc.StatusCode.ABORTED
            assert await outcome(served.record(usage_event(user_id))) == "CONTENTION"
        assert (await served.consume(user_id, 1)).wallet.credits_micros == 0

    async def test_rejects_a_frame_which_moves_nothing(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        held, free = [await served.new_wallet(FUNDS) for _ in range(2)]
        writer_id = new_key()
        stream, _ = await Ingest.opened(served, writer_id)
        frame = [usage_event(held), usage_event(free)]
        stream.frame(0, usage_event(free))
        assert (await stream.answer("ack")).through_offset == 1
        async with contended(mongo_client, SERVED, held):
            stream.frame(1, *frame)
            rejected = await stream.answer("rejected")
        assert (rejected.offset, rejected.next_offset) == (1, 1)
        assert error_info(rejected.error).reason == "CONTENTION"
        assert (await verified(served, held)).credits_micros == FUNDS
        assert (await verified(served, free)).credits_micros == FUNDS - PRICE
        stream.frame(1, *frame)
        ack: pb.UsageFrameAck = await stream.answer("ack")
        assert (ack.through_offset, ack.billed_events) == (3, 2)
        assert (await verified(served, held)).credits_micros == FUNDS - PRICE
        assert (await verified(served, free)).credits_micros == FUNDS - 2 * PRICE
