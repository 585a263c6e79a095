"""Usage that could not be billed: listed, replayed, discarded, on a real server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import ObjectId
from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.ledger.calls import PRICE, Ingest, reasons, refused
from tests.serving import (
    ManualClock,
    Served,
    connected,
    error_info,
    make_key,
    new_key,
    new_user,
    usage_event,
)

DAY_MS = 86_400_000


@pytest.fixture
async def partner(served: Served, mongo_url: str) -> AsyncIterator[Served]:
    """A client of its own, so that its list begins empty."""
    client_id = f"partner-{new_key()[:12]}"
    key = await make_key(mongo_url, "test_served", client_id, ["usage.read", "usage.write"])
    async with connected(served.target, key) as client:
        yield client
    await Ingest.close_all()


async def rejected(served: Served, **fields: Any) -> list[pb.RejectedUsage]:
    page = await served.usage.ListRejectedUsage(pb.ListRejectedUsageRequest(**fields))
    return list(page.rejected_usages)


async def replay(served: Served, *ids: str) -> list[pb.RecordUsageResult]:
    answer = await served.usage.ReplayRejectedUsage(pb.ReplayRejectedUsageRequest(ids=ids))
    return list(answer.results)


async def discard(served: Served, *ids: str) -> int:
    request = pb.DiscardRejectedUsageRequest(ids=ids)
    answer: pb.DiscardRejectedUsageResponse = await served.usage.DiscardRejectedUsage(request)
    return answer.discarded


def reason(row: pb.RejectedUsage) -> str:
    return str(error_info(row.error).reason)


class TestListRejectedUsage:
    async def test_keeps_the_event_and_why(self, partner: Served) -> None:
        event = usage_event(new_user(), labels={"b": "2", "a": "1"})
        (result,) = await partner.record(event)
        (row,) = await rejected(partner)
        assert row.event == event
        assert row.error == result.error.error
        assert row.client_id.startswith("partner-")
        kept_ms = row.expires_time.ToMilliseconds() - row.created_time.ToMilliseconds()
        assert kept_ms == 30 * DAY_MS

    async def test_keeps_an_event_once_however_often_it_is_refused(self, partner: Served) -> None:
        event = usage_event(new_user())
        await partner.record(event, event)
        (first,) = await rejected(partner)
        await partner.record(event)
        assert await rejected(partner) == [first]

    async def test_has_what_streams_refused_too(self, partner: Served) -> None:
        stream, _ = await Ingest.opened(partner, new_key())
        lost = usage_event(new_user())
        stream.frame(0, lost, usage_event("x"), usage_event(new_user(), usage_key=""))
        ack = await stream.answer("ack")
        assert [error.kept for error in ack.errors] == [True, False, False]
        (row,) = await rejected(partner)
        assert row.event == lost

    async def test_comes_oldest_first_page_by_page(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        made = []
        for number in range(5):
            event = usage_event(new_user(), occurred_ms=manual_clock())
            made.append(event.usage_key)
            await clocked.record(event)
            manual_clock.advance(number % 2)
        whole = await rejected(clocked)
        times = [row.created_time.ToMilliseconds() for row in whole]
        assert times == sorted(times)
        assert {row.event.usage_key for row in whole} == set(made)
        seen, token = [], ""
        while True:
            page = await clocked.usage.ListRejectedUsage(
                pb.ListRejectedUsageRequest(page_size=1, page_token=token)
            )
            seen += page.rejected_usages
            token = page.next_page_token
            if not token:
                break
        assert seen == whole

    async def test_of_one_user(self, partner: Served) -> None:
        one, other = new_user(), new_user()
        await partner.record(usage_event(one), usage_event(other))
        assert [row.event.user_id for row in await rejected(partner, user_id=one)] == [one]
        assert await rejected(partner, user_id=new_user()) == []

    async def test_is_each_clients_own_and_the_admins(
        self, served: Served, partner: Served
    ) -> None:
        user_id = new_user()
        mine, theirs = usage_event(user_id), usage_event(user_id)
        await partner.record(mine)
        await served.record(theirs)
        assert [row.event for row in await rejected(partner)] == [mine]
        everybodys = await rejected(served, user_id=user_id)
        assert {row.event.usage_key for row in everybodys} == {mine.usage_key, theirs.usage_key}

    async def test_refuses_tokens_of_another_query(self, served: Served, partner: Served) -> None:
        await partner.record(usage_event(new_user()), usage_event(new_user()))
        request = pb.ListRejectedUsageRequest(page_size=1)
        token = (await partner.usage.ListRejectedUsage(request)).next_page_token
        # An admin's list is another one, though the request is the same.
        with refused("PAGE_TOKEN_INVALID"):
            await rejected(served, page_token=token)
        with refused("PAGE_TOKEN_INVALID"):
            await rejected(partner, page_token=token, user_id=new_user())
        with refused("PAGE_TOKEN_INVALID"):
            await rejected(partner, page_token="x" + token)

    async def test_keeps_no_more_than_its_bound(
        self, partner: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.credits.rejections.MAX_KEPT_PER_CLIENT", 2)
        for _ in range(2):
            (result,) = await partner.record(usage_event(new_user()))
            assert result.error.kept
        (result,) = await partner.record(usage_event(new_user()))
        assert not result.error.kept
        assert len(await rejected(partner)) == 2


class TestReplayRejectedUsage:
    async def test_bills_once_the_wallet_is_there(self, served: Served, partner: Served) -> None:
        user_id = new_user()
        events = [usage_event(user_id), usage_event(user_id)]
        await partner.record(*events)
        rows = await rejected(partner)
        ids = [row.id for row in rows]
        assert reasons(await replay(partner, *ids)) == ["WALLET_NOT_FOUND"] * 2
        assert await rejected(partner) == rows
        await served.new_wallet(10 * PRICE, user_id)
        results = await replay(partner, *ids)
        assert [result.receipt.credits_micros for result in results] == [PRICE] * 2
        assert await rejected(partner) == []
        assert (await served.wallet(user_id)).credits_micros == 8 * PRICE
        usage_keys = [row.usage_key for row in (await served.transactions(user_id))[1:]]
        assert usage_keys == [row.event.usage_key for row in rows]
        assert reasons(await replay(partner, *ids)) == ["REJECTED_USAGE_NOT_FOUND"] * 2
        assert (await served.wallet(user_id)).credits_micros == 8 * PRICE
        await served.assert_sound(user_id)

    async def test_of_what_was_billed_meanwhile_is_a_duplicate(
        self, served: Served, partner: Served
    ) -> None:
        user_id = new_user()
        event = usage_event(user_id)
        await partner.record(event)
        (row,) = await rejected(partner)
        await served.new_wallet(10 * PRICE, user_id)
        await partner.record(event)
        (result,) = await replay(partner, row.id)
        assert result.receipt.duplicate
        assert await rejected(partner) == []
        assert (await served.wallet(user_id)).credits_micros == 9 * PRICE

    async def test_keeps_what_is_still_refused_with_the_new_reason(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        event = usage_event(new_user(), occurred_ms=manual_clock() + DAY_MS)
        await clocked.record(event)
        (row,) = await rejected(clocked)
        assert reason(row) == "OCCURRED_TIME_OUT_OF_RANGE"
        manual_clock.advance(DAY_MS)
        assert reasons(await replay(clocked, row.id)) == ["WALLET_NOT_FOUND"]
        (after,) = await rejected(clocked)
        assert (after.id, after.created_time) == (row.id, row.created_time)
        assert reason(after) == "WALLET_NOT_FOUND"

    async def test_answers_in_the_order_of_the_ids(self, served: Served, partner: Served) -> None:
        payer = new_user()
        await partner.record(usage_event(payer), usage_event(new_user()))
        by_user = {row.event.user_id: row.id for row in await rejected(partner)}
        await served.new_wallet(PRICE, payer)
        missing = str(ObjectId())
        stays = next(row_id for user_id, row_id in by_user.items() if user_id != payer)
        results = await replay(partner, missing, stays, by_user[payer])
        assert reasons(results) == ["REJECTED_USAGE_NOT_FOUND", "WALLET_NOT_FOUND", ""]
        assert [result.error.index for result in results[:2]] == [0, 1]

    async def test_is_for_the_client_itself_or_an_admin(
        self, served: Served, partner: Served, mongo_url: str
    ) -> None:
        user_id = new_user()
        await partner.record(usage_event(user_id))
        (row,) = await rejected(partner)
        await served.new_wallet(PRICE, user_id)
        key = await make_key(mongo_url, "test_served", "stranger", ["usage.write"])
        async with connected(served.target, key) as stranger:
            assert reasons(await replay(stranger, row.id)) == ["REJECTED_USAGE_NOT_FOUND"]
            assert await discard(stranger, row.id) == 0
        assert reasons(await replay(served, row.id)) == [""]
        # In the name of the client whose event it is.
        billed = (await served.transactions(user_id))[-1]
        assert billed.client_id == row.client_id

    async def test_refuses_bad_ids(self, partner: Served) -> None:
        row_id = str(ObjectId())
        with refused("FIELD_INVALID"):
            await replay(partner)
        with refused("FIELD_INVALID"):
            await replay(partner, row_id, row_id)
        with refused("MALFORMED_ID"):
            await replay(partner, "x")
        with refused("FIELD_INVALID"):
            await replay(partner, *(str(ObjectId()) for _ in range(1_001)))


class TestDiscardRejectedUsage:
    async def test_gives_up_for_good(self, served: Served, partner: Served) -> None:
        user_id = new_user()
        await partner.record(usage_event(user_id), usage_event(user_id))
        one, other = (row.id for row in await rejected(partner))
        assert await discard(partner, one, str(ObjectId())) == 1
        assert await discard(partner, one) == 0
        assert [row.id for row in await rejected(partner)] == [other]
        await served.new_wallet(PRICE, user_id)
        assert reasons(await replay(partner, one)) == ["REJECTED_USAGE_NOT_FOUND"]
        assert (await served.wallet(user_id)).credits_micros == PRICE

    async def test_makes_room_again(self, partner: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("server.credits.rejections.MAX_KEPT_PER_CLIENT", 1)
        await partner.record(usage_event(new_user()))
        (row,) = await rejected(partner)
        await discard(partner, row.id)
        monkeypatch.setattr("server.credits.rejections.RECOUNT_MS", -1)
        (result,) = await partner.record(usage_event(new_user()))
        assert result.error.kept
