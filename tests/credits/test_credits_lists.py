"""Lists and gets of transactions and usages, on a real server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import ObjectId
from zaaz.credits.v1 import credits_service_pb2 as pb

from tests.ledger.calls import PRICE, refused
from tests.serving import (
    ManualClock,
    Served,
    connected,
    make_key,
    new_key,
    usage_event,
)

INTERNAL = (
    "credit_price_micros",
    "profit_ppm",
    "profit_credits_micros",
    "cost_credits_micros",
    "cost_price_micros",
)


@pytest.fixture
async def reader(served: Served, mongo_url: str) -> AsyncIterator[Served]:
    """A client that may read credits and is no admin."""
    key = await make_key(mongo_url, "test_served", "reader", ["credits.read"])
    async with connected(served.target, key) as client:
        yield client


async def transactions(served: Served, **fields: Any) -> Any:
    return await served.credits.ListCreditsTransactions(pb.ListCreditsTransactionsRequest(**fields))


async def usages(served: Served, **fields: Any) -> Any:
    return await served.credits.ListCreditsUsages(pb.ListCreditsUsagesRequest(**fields))


async def wallet_with_history(served: Served) -> tuple[str, list[str]]:
    """A user with a grant, two usages and a consumption between them; the ids in order."""
    user_id = await served.new_wallet()
    ids = [(await served.grant(user_id, 10 * PRICE)).transaction.id]
    ids += [(await served.record(usage_event(user_id)))[0].receipt.credits_transaction_id]
    ids += [(await served.consume(user_id, 1)).transaction.id]
    ids += [(await served.record(usage_event(user_id)))[0].receipt.credits_transaction_id]
    return user_id, ids


class TestListCreditsTransactions:
    async def test_of_a_user_newest_first_page_by_page(self, served: Served) -> None:
        user_id, ids = await wallet_with_history(served)
        seen, token = [], ""
        for _ in ids:
            page = await transactions(served, user_id=user_id, page_size=1, page_token=token)
            seen += [row.id for row in page.credits_transactions]
            token = page.next_page_token
        assert seen == ids[::-1]
        assert token == ""

    async def test_pages_stay_in_step_while_new_ones_are_written(self, served: Served) -> None:
        user_id, ids = await wallet_with_history(served)
        page = await transactions(served, user_id=user_id, page_size=2)
        await served.consume(user_id, 1)
        rest = await transactions(served, user_id=user_id, page_token=page.next_page_token)
        rows = [*page.credits_transactions, *rest.credits_transactions]
        assert [row.id for row in rows] == ids[::-1]

    async def test_of_everyone_newest_first_page_by_page(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        """Several wallets, some entries at the same millisecond."""
        made = []
        for number in range(6):
            made.append((await clocked.grant(await clocked.new_wallet(), 1)).transaction)
            manual_clock.advance(number % 2)
        whole = list((await transactions(clocked)).credits_transactions)
        assert {row.id for row in whole} == {row.id for row in made}
        times = [row.created_time.ToMilliseconds() for row in whole]
        assert times == sorted(times, reverse=True)
        seen, token = [], ""
        while True:
            page = await transactions(clocked, page_size=1, page_token=token)
            seen += list(page.credits_transactions)
            token = page.next_page_token
            if not token:
                break
        assert seen == whole

    async def test_is_empty_for_who_has_nothing(self, served: Served) -> None:
        page = await transactions(served, user_id=await served.new_wallet())
        assert not page.credits_transactions
        assert page.next_page_token == ""

    async def test_refuses_forged_tokens_and_those_of_another_query(self, served: Served) -> None:
        user_id, _ = await wallet_with_history(served)
        token = (await transactions(served, user_id=user_id, page_size=1)).next_page_token
        with refused("PAGE_TOKEN_INVALID"):
            await transactions(served, user_id=user_id, page_token=token[::-1])
        with refused("PAGE_TOKEN_INVALID"):
            await transactions(served, page_token=token)
        with refused("PAGE_TOKEN_INVALID"):
            await usages(served, user_id=user_id, page_token=token)
        other = await served.new_wallet()
        with refused("PAGE_TOKEN_INVALID"):
            await transactions(served, user_id=other, page_token=token)

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"user_id": "me"}, "MALFORMED_ID"),
            ({"page_size": -1}, "FIELD_INVALID"),
            ({"page_token": "x" * 1_001}, "FIELD_INVALID"),
        ],
    )
    async def test_refuses_bad_fields(
        self, served: Served, fields: dict[str, Any], reason: str
    ) -> None:
        with refused(reason):
            await transactions(served, **fields)
        with refused(reason):
            await usages(served, **fields)


class TestGetCreditsTransaction:
    async def test_is_the_one_listed(self, served: Served) -> None:
        user_id, ids = await wallet_with_history(served)
        rows = await served.transactions(user_id)
        for row, transaction_id in zip(rows, ids, strict=True):
            request = pb.GetCreditsTransactionRequest(id=transaction_id)
            answer = await served.credits.GetCreditsTransaction(request)
            assert answer.credits_transaction == row

    async def test_refuses_what_is_not_there(self, served: Served) -> None:
        missing = str(ObjectId())
        with refused("TRANSACTION_NOT_FOUND") as refusal:
            await served.credits.GetCreditsTransaction(pb.GetCreditsTransactionRequest(id=missing))
        assert refusal.metadata == {"id": missing}
        with refused("MALFORMED_ID"):
            await served.credits.GetCreditsTransaction(pb.GetCreditsTransactionRequest(id="x"))


class TestListCreditsUsages:
    async def test_of_a_user_newest_first_page_by_page(self, served: Served) -> None:
        user_id, ids = await wallet_with_history(served)
        first = await usages(served, user_id=user_id, page_size=1)
        second = await usages(
            served, user_id=user_id, page_size=1, page_token=first.next_page_token
        )
        seen = [*first.credits_usages, *second.credits_usages]
        assert [row.id for row in seen] == [ids[3], ids[1]]
        assert second.next_page_token == ""

    async def test_of_everyone(self, clocked: Served, manual_clock: ManualClock) -> None:
        made = []
        for _ in range(3):
            user_id = await clocked.new_wallet(1)
            event = usage_event(user_id, occurred_ms=manual_clock())
            made.append((await clocked.record(event))[0].receipt.credits_transaction_id)
            manual_clock.advance(1)
        assert [row.id for row in (await usages(clocked)).credits_usages] == made[::-1]


class TestGetCreditsUsage:
    async def test_says_what_was_used_and_what_it_cost(self, served: Served) -> None:
        user_id = await served.new_wallet(PRICE)
        event = usage_event(
            user_id, cache_read_tokens=100, cache_write_tokens=7, labels={"feature": "chat"}
        )
        (result,) = await served.record(event)
        usage = await self.get(served, result.receipt.credits_transaction_id)
        for field in ("usage_key", "user_id", "ai_model", "input_tokens", "output_tokens"):
            assert getattr(usage, field) == getattr(event, field)
        assert (usage.cache_read_tokens, usage.cache_write_tokens) == (100, 7)
        assert usage.occurred_time.ToMilliseconds() == event.occurred_time.ToMilliseconds()
        assert dict(usage.labels) == {"feature": "chat"}
        assert usage.credits_transaction_id == usage.id
        assert usage.credits_micros == result.receipt.credits_micros
        assert usage.credits_micros == usage.input_credits_micros + usage.output_credits_micros
        assert usage.credits_micros == usage.cost_credits_micros + usage.profit_credits_micros
        assert usage.shortfall_micros == usage.credits_micros - PRICE
        assert all(getattr(usage, field) > 0 for field in INTERNAL)

    async def test_costs_are_for_admins_only(self, served: Served, reader: Served) -> None:
        user_id, ids = await wallet_with_history(served)
        whole = await self.get(served, ids[1])
        public = await self.get(reader, ids[1])
        assert all(getattr(public, field) == 0 for field in INTERNAL)
        for field in INTERNAL:
            whole.ClearField(field)
        assert public == whole
        (_, listed) = (await usages(reader, user_id=user_id)).credits_usages
        assert listed == public
        # Nor do transactions tell them to anyone.
        rows = (await transactions(reader, user_id=user_id)).credits_transactions
        assert [row.id for row in rows] == ids[::-1]

    async def test_refuses_other_transactions_and_none(self, served: Served) -> None:
        user_id = await served.new_wallet()
        granted = (await served.grant(user_id, 1)).transaction.id
        for missing in (granted, str(ObjectId())):
            with refused("USAGE_NOT_FOUND") as refusal:
                await self.get(served, missing)
            assert refusal.metadata == {"id": missing}
        with refused("MALFORMED_ID"):
            await self.get(served, new_key())

    async def get(self, served: Served, usage_id: str) -> Any:
        request = pb.GetCreditsUsageRequest(id=usage_id)
        return (await served.credits.GetCreditsUsage(request)).credits_usage
