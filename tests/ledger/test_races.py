"""Many at once on one server: the books stay exact, whoever comes first."""

import asyncio
from collections import Counter
from typing import Any

import grpc
from zaaz.credits.v1 import credits_service_pb2 as pb

from tests.ledger.calls import PRICE, at, reasons
from tests.serving import ManualClock, Served, new_key, new_user, reason_of, usage_event


async def outcome(calling: Any) -> tuple[str, Any]:
    """The refusal's reason and no answer, or "" and the answer."""
    try:
        return "", await calling
    except grpc.aio.AioRpcError as error:
        return reason_of(error), None


async def outcomes(*calls: Any) -> Counter[str]:
    return Counter(reason for reason, _ in await asyncio.gather(*map(outcome, calls)))


class TestOneWallet:
    async def test_two_hundred_want_the_last_credit(self, served: Served) -> None:
        user_id = await served.new_wallet(1)
        told = await outcomes(*(served.consume(user_id, 1) for _ in range(200)))
        assert told == {"": 1, "INSUFFICIENT_CREDITS": 199}
        wallet = await served.wallet(user_id)
        assert (wallet.credits_micros, wallet.sequence) == (0, 2)
        await served.assert_sound(user_id)

    async def test_sixty_four_all_succeed_while_funds_last(self, served: Served) -> None:
        user_id = await served.new_wallet()
        for amount in (100, 30, 7):
            await served.grant(user_id, amount)
        answers = await asyncio.gather(*(served.consume(user_id, 2) for _ in range(64)))
        # Each its own place in one order: no balance was seen twice.
        balances = {answer.transaction.balance_after_micros for answer in answers}
        assert balances == set(range(137 - 2 * 64, 137, 2))
        assert (await served.wallet(user_id)).credits_micros == 9
        told = await outcomes(*(served.consume(user_id, 2) for _ in range(64)))
        assert told == {"": 4, "INSUFFICIENT_CREDITS": 60}
        await served.assert_sound(user_id)

    async def test_everything_at_once(self, served: Served) -> None:
        user_id = await served.new_wallet(100 * PRICE)
        events = [usage_event(user_id) for _ in range(40)]
        calls = [served.record(event) for event in events]
        calls += [served.consume(user_id, PRICE) for _ in range(20)]
        calls += [served.grant(user_id, PRICE) for _ in range(10)]
        calls += [served.wallet(user_id) for _ in range(10)]
        assert await outcomes(*calls) == {"": 80}
        wallet = await served.wallet(user_id)
        assert (wallet.credits_micros, wallet.sequence) == (50 * PRICE, 71)
        await served.assert_sound(user_id)


class TestOneRequest:
    async def test_sent_fifty_times_has_one_effect_and_one_answer(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(3), new_key()
        answers = await asyncio.gather(*(served.consume(user_id, 3, request_id) for _ in range(50)))
        assert all(answer == answers[0] for answer in answers)
        assert (await served.wallet(user_id)).credits_micros == 0
        await served.assert_sound(user_id)

    async def test_that_makes_a_wallet(self, served: Served) -> None:
        user_id = new_user()
        await asyncio.gather(*(served.new_wallet(user_id=user_id) for _ in range(30)))
        assert (await served.wallet(user_id)).sequence == 0

    async def test_of_two_payloads_one_wins(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(100), new_key()
        told = await outcomes(
            *(served.consume(user_id, 1 + number % 2, request_id) for number in range(40))
        )
        assert told == {"": 20, "REQUEST_ID_REUSED": 20}
        await served.assert_sound(user_id)

    async def test_of_a_reversal_one_wins(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        consumed = (await served.consume(user_id, 4)).transaction.id
        told = await outcomes(
            *(
                served.credits.ReverseCreditsTransaction(
                    pb.ReverseCreditsTransactionRequest(id=consumed, request_id=new_key())
                )
                for _ in range(20)
            )
        )
        assert told == {"": 1, "ALREADY_REVERSED": 19}
        assert (await served.wallet(user_id)).credits_micros == 10
        await served.assert_sound(user_id)


class TestOneEvent:
    async def test_inside_and_across_calls_is_billed_once(self, served: Served) -> None:
        user_id = await served.new_wallet(100 * PRICE)
        events = [usage_event(user_id) for _ in range(20)]
        calls = (served.record(*events[n:], *events[:n], *events) for n in range(20))
        answers = await asyncio.gather(*calls)
        receipts = [result.receipt for answer in answers for result in answer]
        assert sum(not receipt.duplicate for receipt in receipts) == 20
        assert len({receipt.credits_transaction_id for receipt in receipts}) == 20
        assert (await served.wallet(user_id)).credits_micros == 80 * PRICE
        await served.assert_sound(user_id)

    async def test_of_two_payloads_one_wins(self, served: Served) -> None:
        user_id = await served.new_wallet(100 * PRICE)
        key, now_ms = new_key(), usage_event(user_id).occurred_time.ToMilliseconds()
        pair = [
            usage_event(user_id, usage_key=key, occurred_ms=now_ms, labels={"n": str(number)})
            for number in range(2)
        ]
        answers = await asyncio.gather(*(served.record(pair[n % 2]) for n in range(30)))
        told = Counter(reason for answer in answers for reason in reasons(answer))
        assert told == {"": 15, "USAGE_KEY_REUSED": 15}
        assert (await served.wallet(user_id)).credits_micros == 99 * PRICE


class TestOneExpiry:
    async def test_is_written_once(self, clocked: Served, manual_clock: ManualClock) -> None:
        user_id = await clocked.new_wallet()
        await clocked.grant(user_id, 50, expires_time=at(manual_clock() + 1))
        await clocked.grant(user_id, 50)
        manual_clock.advance(1)
        assert await outcomes(*(clocked.consume(user_id, 1) for _ in range(64))) == {
            "": 50,
            "INSUFFICIENT_CREDITS": 14,
        }
        rows = await clocked.transactions(user_id)
        assert len(rows) == 2 + 1 + 50
        await clocked.assert_sound(user_id)
