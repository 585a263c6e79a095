"""GetStatement and ListSigningKeys: a period's transactions, whole and signed."""

import itertools
from contextlib import nullcontext
from hashlib import sha256
from typing import Any

import grpc
import pytest
from bson import ObjectId
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from zaaz.wallet.v1 import statement_service_pb2 as pb
from zaaz.wallet.v1.statement_service_pb2_grpc import StatementServiceStub

from server.wallet.signing import Head, Signer, canonical
from tests.ledger.calls import at, refused
from tests.serving import SECRET, ManualClock, Served, connected, make_key, new_key, new_user
from tests.wallet.statements import (
    get_page,
    get_pages,
    live_through_all,
    public_keys,
    sequences,
    verdict_on,
)


class TestWhole:
    @pytest.mark.parametrize("format_name", ["csv", "jsonl"])
    async def test_every_kind_of_transaction_can_be_verified(
        self, clocked: Served, manual_clock: ManualClock, format_name: str
    ) -> None:
        user_id = await live_through_all(clocked, manual_clock)
        pages = await get_pages(clocked, user_id)
        verdict = await verdict_on(clocked, pages, format_name)
        assert verdict.good, verdict.problems
        assert verdict.transactions == (await clocked.wallet(user_id)).sequence
        transactions = [line.transaction for page in pages for line in page.lines]
        assert transactions == await clocked.transactions(user_id)
        assert {(t.increase_source, t.decrease_reason) for t in transactions} >= {
            (2, 0), (6, 0), (7, 0), (8, 0), (0, 1), (0, 2), (0, 3), (0, 5), (0, 6),
        }  # fmt: skip

    async def test_from_the_wallets_making_until_now(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        made_ms = manual_clock()
        user_id = await clocked.new_wallet(5)
        manual_clock.advance(10)
        await clocked.consume(user_id, 2)
        wallet = await clocked.wallet(user_id)
        page = await get_page(clocked, user_id)
        assert (page.user_id, page.user_wallet_id) == (user_id, wallet.id)
        assert (page.start_time, page.end_time) == (at(made_ms), at(manual_clock() + 1))
        assert (page.opening_balance_micros, page.closing_balance_micros) == (0, 3)
        assert page.opening_sequence == 0
        assert page.opening_chain == sha256(bytes.fromhex(wallet.id)).hexdigest()
        assert sequences([page]) == [1, 2]
        assert (page.head.sequence, page.head.chain) == (2, wallet.chain)
        assert page.head.balance_after_micros == 3
        assert page.head.signed_time == at(manual_clock())

    async def test_a_wallet_without_transactions(self, served: Served) -> None:
        user_id = await served.new_wallet()
        page = await get_page(served, user_id)
        assert not page.lines
        assert page.head.sequence == 0
        assert (await verdict_on(served, [page])).good

    async def test_refuses_who_has_no_wallet(self, served: Served) -> None:
        with refused("WALLET_NOT_FOUND"):
            await get_page(served, new_user())
        with refused("MALFORMED_ID"):
            await get_page(served, "x")


class TestPeriods:
    @pytest.fixture
    async def times(self, clocked: Served, manual_clock: ManualClock) -> tuple[str, list[int]]:
        """A user with a grant of 10 at the first two of the times, and one of 5 at the third."""
        user_id = await clocked.new_wallet()
        times = []
        for amount in (10, 10, 5):
            manual_clock.advance(1_000)
            times.append(manual_clock())
            await clocked.grant(user_id, amount)
        manual_clock.advance(1_000)
        return user_id, times

    async def test_start_is_in_it_and_end_is_not(
        self, clocked: Served, times: tuple[str, list[int]]
    ) -> None:
        user_id, (first, second, third) = times
        page = await get_page(clocked, user_id, start_time=second, end_time=third)
        assert sequences([page]) == [2]
        assert (page.opening_sequence, page.head.sequence) == (1, 2)
        assert (page.opening_balance_micros, page.closing_balance_micros) == (10, 20)
        assert (page.start_time, page.end_time) == (at(second), at(third))
        assert (await verdict_on(clocked, [page])).good
        page = await get_page(clocked, user_id, start_time=first + 1, end_time=third + 1)
        assert sequences([page]) == [2, 3]

    async def test_periods_that_meet_leave_nothing_out(
        self, clocked: Served, times: tuple[str, list[int]]
    ) -> None:
        user_id, (first, second, third) = times
        bounds = [first - 500, first, second, second + 1, third, third + 500]
        pages = [
            await get_page(clocked, user_id, start_time=start, end_time=end)
            for start, end in itertools.pairwise(bounds)
        ]
        assert sequences(pages) == [1, 2, 3]
        for before, after in itertools.pairwise(pages):
            assert before.head.chain == after.opening_chain
            assert before.closing_balance_micros == after.opening_balance_micros

    async def test_one_in_which_nothing_happened(
        self, clocked: Served, times: tuple[str, list[int]]
    ) -> None:
        user_id, (first, second, _) = times
        for start, end in ((first + 1, second), (second + 5, second + 5)):
            page = await get_page(clocked, user_id, start_time=start, end_time=end)
            assert not page.lines
            assert page.opening_balance_micros == page.closing_balance_micros
            assert (await verdict_on(clocked, [page])).good

    async def test_one_before_the_wallet(
        self, clocked: Served, times: tuple[str, list[int]]
    ) -> None:
        user_id, (first, *_) = times
        page = await get_page(clocked, user_id, end_time=first - 900_000)
        assert (page.opening_sequence, page.head.sequence, len(page.lines)) == (0, 0, 0)
        assert page.start_time == page.end_time
        assert (await verdict_on(clocked, [page])).good

    async def test_the_future_has_not_been_written(
        self, clocked: Served, manual_clock: ManualClock, times: tuple[str, list[int]]
    ) -> None:
        user_id, _ = times
        page = await get_page(clocked, user_id, end_time=manual_clock() + 10**9)
        assert sequences([page]) == [1, 2, 3]
        assert page.end_time == at(manual_clock() + 1)

    async def test_refuses_what_is_no_period(
        self, clocked: Served, manual_clock: ManualClock, times: tuple[str, list[int]]
    ) -> None:
        user_id, (first, second, _) = times
        with refused("FIELD_INVALID") as refusal:
            await get_page(clocked, user_id, start_time=second, end_time=first)
        assert refusal.metadata["field"] == "start_time"
        with refused("FIELD_INVALID"):
            await get_page(clocked, user_id, start_time=manual_clock() + 60_000)
        with refused("FIELD_INVALID"):
            await get_page(clocked, user_id, start_time=-1)
        with refused("FIELD_INVALID"):
            await get_page(clocked, user_id, end_time=-1)
        with refused("FIELD_INVALID"):
            await get_page(clocked, user_id, page_size=-1)


class TestPages:
    async def test_all_are_of_the_moment_of_the_first(self, served: Served) -> None:
        user_id = await served.new_wallet()
        for _ in range(5):
            await served.grant(user_id, 10)
        page = first = await get_page(served, user_id, page_size=2)
        pages = [first]
        while page.next_page_token:
            await served.grant(user_id, 1)
            page = await get_page(served, user_id, page_size=2, page_token=page.next_page_token)
            pages.append(page)
        assert sequences(pages) == [1, 2, 3, 4, 5]
        assert [len(page.lines) for page in pages] == [2, 2, 1]
        for page in pages:
            assert page.head == first.head
            assert page.closing_balance_micros == 50
            assert (page.start_time, page.end_time) == (first.start_time, first.end_time)
            assert page.opening_chain == first.opening_chain
        assert (await verdict_on(served, pages)).good

    async def test_have_no_more_than_asked_or_allowed(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.wallet.statement_servicer.DEFAULT_PAGE_SIZE", 2)
        monkeypatch.setattr("server.wallet.statement_servicer.MAX_PAGE_SIZE", 3)
        user_id = await served.new_wallet()
        for _ in range(4):
            await served.grant(user_id, 10)
        assert len((await get_page(served, user_id)).lines) == 2
        assert len((await get_page(served, user_id, page_size=9)).lines) == 3

    async def test_have_no_more_bytes_than_a_message_may(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.wallet.statement_servicer.MAX_PAGE_BYTES", 600)
        user_id = await served.new_wallet()
        for _ in range(5):
            await served.grant(user_id, 10, reason="x" * 100)
        pages = await get_pages(served, user_id)
        assert sequences(pages) == [1, 2, 3, 4, 5]
        assert [len(page.lines) for page in pages] == [1, 1, 1, 1, 1]
        assert (await verdict_on(served, pages)).good

    async def test_a_token_is_good_for_its_own_statement(self, served: Served) -> None:
        user_id, other_id = await served.new_wallet(), await served.new_wallet(1)
        for _ in range(3):
            await served.grant(user_id, 10)
        token = (await get_page(served, user_id, page_size=1)).next_page_token
        with refused("PAGE_TOKEN_INVALID"):
            await get_page(served, other_id, page_token=token)
        with refused("PAGE_TOKEN_INVALID"):
            await get_page(served, user_id, page_token=token, start_time=1_000)
        with refused("PAGE_TOKEN_INVALID"):
            await get_page(served, user_id, page_token=f"{token}x")


class TestSignature:
    async def test_is_over_the_canonical_form_of_the_head(self, served: Served) -> None:
        user_id = await served.new_wallet(5)
        head = (await get_page(served, user_id)).head
        (key,) = await public_keys(served)
        form = (
            f'[1,"{head.user_wallet_id}",1,"{head.chain}",5,'
            f'{head.signed_time.ToMilliseconds()},"{head.key_id}"]'
        )
        Ed25519PublicKey.from_public_bytes(key).verify(head.signature, form.encode())

    async def test_keys_are_named_by_their_hash(self, served: Served) -> None:
        answer = await served.statements.ListSigningKeys(pb.ListSigningKeysRequest())
        (key,) = answer.signing_keys
        assert (key.algorithm, len(key.public_key)) == ("Ed25519", 32)
        assert key.key_id == sha256(key.public_key).hexdigest()[:16]
        assert not answer.next_page_token
        with refused("PAGE_TOKEN_INVALID"):
            await served.statements.ListSigningKeys(pb.ListSigningKeysRequest(page_token="x"))

    async def test_every_process_with_the_secret_has_the_key(self, served: Served) -> None:
        head = Head("0" * 24, 1, bytes(32), 5, 1_000)
        signer, again, other = Signer(SECRET), Signer(SECRET), Signer(f"{SECRET}!")
        assert [signer.public_key] == await public_keys(served)
        assert signer.sign(head) == again.sign(head)
        assert other.key_id != signer.key_id
        key = Ed25519PublicKey.from_public_bytes(signer.public_key)
        key.verify(signer.sign(head), canonical(head, signer.key_id))


class TestAccess:
    async def test_keys_are_for_everyone_and_statements_are_not(self, served: Served) -> None:
        user_id = await served.new_wallet()
        async with grpc.aio.insecure_channel(served.target) as channel:
            anyone: Any = StatementServiceStub(channel)
            answer = await anyone.ListSigningKeys(pb.ListSigningKeysRequest())
            assert len(answer.signing_keys) == 1
            with refused("CREDENTIALS_MISSING"):
                await anyone.GetStatement(pb.GetStatementRequest(user_id=user_id))
            with refused("CREDENTIALS_MISSING"):
                await anyone.GetBalanceAt(pb.GetBalanceAtRequest(user_id=user_id, time=at(1)))
            with refused("CREDENTIALS_MISSING"):
                await anyone.GetTrialBalance(pb.GetTrialBalanceRequest())

    @pytest.mark.parametrize(
        ("scope", "allowed"), [("wallet.read", (True, False)), ("credits.read", (False, True))]
    )
    async def test_each_takes_its_scope(
        self, served: Served, mongo_url: str, scope: str, allowed: tuple[bool, bool]
    ) -> None:
        user_id = await served.new_wallet()
        key = await make_key(mongo_url, "test_served", f"c-{new_key()[:20]}", [scope])
        async with connected(served.target, key) as client:
            calls = (
                (client.statements.GetStatement, pb.GetStatementRequest(user_id=user_id)),
                (client.statements.GetTrialBalance, pb.GetTrialBalanceRequest(end_time=at(1_000))),
            )
            for (call, request), is_allowed in zip(calls, allowed, strict=True):
                with nullcontext() if is_allowed else refused("SCOPE_MISSING"):
                    await call(request)


async def test_a_statement_of_broken_books_is_told_by_its_line(
    served: Served, mongo_client: Any
) -> None:
    user_id = await served.new_wallet(5)
    await served.consume(user_id, 1)
    await served.consume(user_id, 2)
    entries = mongo_client["test_served"]["credits_transactions"]
    await entries.update_one(
        {"user_id": ObjectId(user_id), "sequence": 2}, {"$set": {"client_id": "x"}}
    )
    verdict = await verdict_on(served, await get_pages(served, user_id))
    assert [problem.line for problem in verdict.problems] == [3]
