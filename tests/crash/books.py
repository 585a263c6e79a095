"""Reads a workload's users back through the API and holds everything against everything."""

from collections import Counter
from collections.abc import Mapping

from zaaz.credits.v1 import usage_service_pb2 as pb
from zaaz.credits.v1.credits_service_pb2 import ListCreditsUsagesRequest
from zaaz.ledger.v1.credits_transaction_pb2 import TRANSACTION_TYPE_INCREASE
from zaaz.ledger.v1.credits_usage_pb2 import CreditsUsage

from tests.crash.trace import Workload
from tests.serving import Served

POOR_USERS = 4
"""Whose credits run out on the way."""


async def fund(served: Served, workload: Workload) -> dict[str, int]:
    """Wallets with three grants each; the first users get half of what they will need."""
    owed, funds = workload.owed(), {}
    for place, user_id in enumerate(workload.user_ids):
        share = owed[user_id] // 2 if place < POOR_USERS else owed[user_id] * 2
        grants = [share // 2, share // 3, share - share // 2 - share // 3]
        await served.new_wallet(user_id=user_id)
        for priority, credits_micros in enumerate(grants):
            await served.grant(user_id, credits_micros, priority=priority % 2)
        funds[user_id] = share
    return funds


async def next_offset(served: Served, writer_id: str) -> int:
    """Where the server says that the writer stands."""
    call = served.usage.IngestUsage()
    await call.write(pb.IngestUsageRequest(open=pb.OpenUsageStream(writer_id=writer_id)))
    answer = await call.read()
    await call.done_writing()
    assert [rest async for rest in call] == []
    return int(answer.opened.next_offset)


async def usages(served: Served, user_id: str) -> list[CreditsUsage]:
    """All of a user's usages."""
    rows: list[CreditsUsage] = []
    token = ""
    while True:
        page = await served.credits.ListCreditsUsages(
            ListCreditsUsagesRequest(user_id=user_id, page_size=1_000, page_token=token)
        )
        rows += page.credits_usages
        token = page.next_page_token
        if not token:
            return rows


async def assert_billed_exactly_once(
    served: Served, workload: Workload, funds: Mapping[str, int]
) -> None:
    """Every event once, at its price, and every wallet sound, to the micro-credit."""
    owed = workload.owed()
    billed: Counter[str] = Counter()
    charged = decreased = short = 0
    for user_id in workload.user_ids:
        used = await usages(served, user_id)
        billed.update(usage.usage_key for usage in used)
        for usage in used:
            assert usage.credits_micros == workload.charges[usage.usage_key]
        user_short = sum(usage.shortfall_micros for usage in used)
        wallet = await served.wallet(user_id)
        assert wallet.credits_micros == max(0, funds[user_id] - owed[user_id])
        assert user_short == max(0, owed[user_id] - funds[user_id])
        transactions = await served.transactions(user_id)
        assert [row.sequence for row in transactions] == list(range(1, len(transactions) + 1))
        granted = 0
        for row in transactions:
            if row.type == TRANSACTION_TYPE_INCREASE:
                granted += row.credits_micros
            else:
                decreased += row.credits_micros
        assert granted == funds[user_id]
        await served.assert_sound(user_id)
        charged += sum(usage.credits_micros for usage in used)
        short += user_short
    assert billed == Counter(event.usage_key for event in workload.events)
    assert charged == sum(workload.charges.values()) == decreased + short
