"""Calls of StatementService, and a wallet with entries of every kind."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from zaaz.credits.v1 import credits_process_service_pb2 as process_pb
from zaaz.credits.v1 import credits_service_pb2 as credits_pb
from zaaz.ledger.v1 import hold_pb2
from zaaz.wallet.v1 import statement_service_pb2 as pb
from zaaz_client.statements import FORMATS, Verdict, head_row, opening_row, transaction_row, verify

from tests.ledger.calls import PRICE, at
from tests.serving import MODEL, ManualClock, Served, new_key, usage_event

HELD_MS = 2_000


async def get_page(served: Served, user_id: str, **fields: Any) -> pb.GetStatementResponse:
    """A page of the statement; times in milliseconds."""
    for name in {"start_time", "end_time"} & fields.keys():
        fields[name] = at(fields[name])
    request = pb.GetStatementRequest(user_id=user_id, **fields)
    page: pb.GetStatementResponse = await served.statements.GetStatement(request)
    return page


async def get_pages(served: Served, user_id: str, **fields: Any) -> list[pb.GetStatementResponse]:
    """All pages."""
    pages = [await get_page(served, user_id, **fields)]
    while pages[-1].next_page_token:
        pages.append(
            await get_page(served, user_id, **fields, page_token=pages[-1].next_page_token)
        )
    return pages


def sequences(pages: Sequence[pb.GetStatementResponse]) -> list[int]:
    return [line.transaction.sequence for page in pages for line in page.lines]


async def public_keys(served: Served) -> list[bytes]:
    answer = await served.statements.ListSigningKeys(pb.ListSigningKeysRequest())
    return [key.public_key for key in answer.signing_keys]


async def verdict_on(
    served: Served, pages: Sequence[pb.GetStatementResponse], format_name: str = "jsonl"
) -> Verdict:
    """What the SDK's verifier says of the statement as a file."""
    rows = [opening_row(pages[0])]
    rows += [transaction_row(line) for page in pages for line in page.lines]
    rows.append(head_row(pages[-1].head))
    written = FORMATS[format_name]
    lines = [written.title, *map(written.write, rows)]
    encoded = [line.encode() for line in lines if line]
    return verify(encoded, await public_keys(served))


async def hold(served: Served, user_id: str, policy: int) -> str:
    """A hold of 1,000 tokens for HELD_MS. Returns its id."""
    request = process_pb.AuthorizeUsageRequest(
        request_id=new_key(),
        user_id=user_id,
        ai_model=MODEL,
        max_input_tokens=1_000,
        ttl=Duration(seconds=HELD_MS // 1_000),
        disconnect_policy=hold_pb2.DisconnectPolicy.ValueType(policy),
    )
    answer = await served.process.AuthorizeUsage(request)
    assert answer.allowed
    return str(answer.hold.id)


async def live_through_all(served: Served, clock: ManualClock) -> str:
    """A user whose wallet has entries of every kind."""
    user_id = await served.new_wallet()
    await served.grant(user_id, 9 * PRICE, reason='for "you",\n=thanks é', labels={"a/b": "é"})
    await served.record(usage_event(user_id, labels={"b": "1", "a": "2"}, occurred_ms=clock()))
    spent = (await served.consume(user_id, 11)).transaction
    await served.credits.ReverseCreditsTransaction(
        credits_pb.ReverseCreditsTransactionRequest(request_id=new_key(), id=spent.id)
    )
    released = await hold(served, user_id, hold_pb2.DISCONNECT_POLICY_RELEASE)
    await served.process.ReleaseHold(
        process_pb.ReleaseHoldRequest(request_id=new_key(), hold_id=released)
    )
    await hold(served, user_id, hold_pb2.DISCONNECT_POLICY_RELEASE)
    await hold(served, user_id, hold_pb2.DISCONNECT_POLICY_CAPTURE_ALL)
    clock.advance(HELD_MS)
    await served.grant(user_id, 7, expires_time=at(clock() + 1_000), priority=3)
    clock.advance(1_000)
    await served.consume(user_id, 1)
    return user_id
