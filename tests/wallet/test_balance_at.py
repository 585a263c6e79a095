"""GetBalanceAt: what a wallet showed at a moment is what it is said to have shown later."""

import random
from collections.abc import Awaitable, Callable

import pytest
from bson import ObjectId
from google.protobuf.duration_pb2 import Duration
from zaaz.credits.v1 import credits_process_service_pb2 as process_pb
from zaaz.ledger.v1 import hold_pb2, wallet_pb2
from zaaz.wallet.v1 import statement_service_pb2 as pb
from zaaz.wallet.v1 import wallet_service_pb2

from tests.conftest import MongoClient
from tests.ledger.calls import at, refused
from tests.serving import MODEL, ManualClock, Served, new_key, new_user, usage_event

HISTORIES = 4
STEPS = 40

Balances = tuple[int, int, int]
"""Credits, held, debt."""


async def balance_at(served: Served, user_id: str, time_ms: int) -> pb.GetBalanceAtResponse:
    request = pb.GetBalanceAtRequest(user_id=user_id, time=at(time_ms))
    answer: pb.GetBalanceAtResponse = await served.statements.GetBalanceAt(request)
    return answer


def balances(found: pb.GetBalanceAtResponse | wallet_pb2.Wallet) -> Balances:
    return found.credits_micros, found.held_micros, found.debt_micros


class TestMoments:
    async def test_before_its_making_a_wallet_had_nothing(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        earlier = manual_clock() - 1
        user_id = await clocked.new_wallet(5)
        found = await balance_at(clocked, user_id, earlier)
        assert (balances(found), found.available_micros, found.sequence) == ((0, 0, 0), 0, 0)
        assert found.time == at(earlier)

    async def test_after_the_last_transaction_made_by_then(
        self, clocked: Served, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.ledger.statements.PROBES", 3)
        user_id = await clocked.new_wallet()
        start_ms = manual_clock()
        for _ in range(40):
            manual_clock.advance(10)
            await clocked.grant(user_id, 7)
        for elapsed_ms in (*range(0, 400, 3), 400):
            found = await balance_at(clocked, user_id, start_ms + elapsed_ms)
            step = elapsed_ms // 10
            assert (found.credits_micros, found.sequence) == (7 * step, step)

    async def test_of_several_at_one_moment_all_count(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(5)
        await clocked.consume(user_id, 2)
        found = await balance_at(clocked, user_id, manual_clock())
        assert (found.credits_micros, found.sequence) == (3, 2)

    async def test_the_future_is_not_told(self, clocked: Served, manual_clock: ManualClock) -> None:
        user_id = await clocked.new_wallet(5)
        with refused("FIELD_INVALID") as refusal:
            await balance_at(clocked, user_id, manual_clock() + 1)
        assert refusal.metadata["field"] == "time"

    async def test_refuses_what_is_not_there(self, served: Served) -> None:
        with refused("WALLET_NOT_FOUND"):
            await balance_at(served, new_user(), 1)
        with refused("MALFORMED_ID"):
            await balance_at(served, "x", 1)
        with refused("FIELD_INVALID"):
            await served.statements.GetBalanceAt(pb.GetBalanceAtRequest(user_id=new_user()))
        with refused("FIELD_INVALID"):
            await balance_at(served, await served.new_wallet(), -1)

    async def test_entries_that_are_gone_are_not_searched_for_ever(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        user_id = await served.new_wallet()
        granted = [(await served.grant(user_id, 7)).transaction for _ in range(4)]
        entries = mongo_client["test_served"]["credits_transactions"]
        await entries.delete_many({"user_id": ObjectId(user_id), "sequence": {"$gte": 3}})
        now_ms = granted[-1].created_time.ToMilliseconds()
        found = await balance_at(served, user_id, now_ms)
        assert (found.credits_micros, found.sequence) == (14, 2)


class TestTime:
    async def test_what_has_expired_counts_though_it_has_no_entry_yet(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(5)
        due_ms = manual_clock() + 100
        await clocked.grant(user_id, 7, expires_time=at(due_ms))
        manual_clock.advance(1_000)
        assert (await balance_at(clocked, user_id, due_ms - 1)).credits_micros == 12
        found = await balance_at(clocked, user_id, due_ms)
        assert (found.credits_micros, found.sequence) == (5, 2)

    async def test_an_expiry_that_was_written_later_counts_when_it_happened(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(5)
        start_ms = manual_clock()
        # The one that ends first burns last.
        await clocked.grant(user_id, 7, expires_time=at(start_ms + 100), priority=2)
        await clocked.grant(user_id, 9, expires_time=at(start_ms + 200), priority=1)
        manual_clock.advance(1_000)
        await clocked.consume(user_id, 1)
        assert [t.sequence for t in await clocked.transactions(user_id)] == [1, 2, 3, 4, 5, 6]
        shown = {
            time_ms: (await balance_at(clocked, user_id, start_ms + time_ms)).credits_micros
            for time_ms in (0, 99, 100, 199, 200, 999, 1_000)
        }
        assert shown == {0: 21, 99: 21, 100: 14, 199: 14, 200: 5, 999: 5, 1_000: 4}

    async def test_a_hold_that_ran_out_was_billed_when_it_did(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(10**6)
        start_ms = manual_clock()
        request = process_pb.AuthorizeUsageRequest(
            request_id=new_key(),
            user_id=user_id,
            ai_model=MODEL,
            max_input_tokens=1_000,
            ttl=Duration(seconds=1),
            disconnect_policy=hold_pb2.DISCONNECT_POLICY_CAPTURE_ALL,
        )
        held = (await clocked.process.AuthorizeUsage(request)).hold.held_micros
        manual_clock.advance(5_000)
        await clocked.consume(user_id, 1)
        shown = [
            balances(await balance_at(clocked, user_id, start_ms + time_ms))
            for time_ms in (0, 999, 1_000, 4_999, 5_000)
        ]
        before, after = (10**6, held, 0), (10**6 - held, 0, 0)
        assert shown == [before, before, after, after, (10**6 - held - 1, 0, 0)]

    async def test_usage_that_was_told_later_counts_when_it_was_told(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(10**6)
        start_ms = manual_clock()
        manual_clock.advance(1_000)
        await clocked.record(usage_event(user_id, occurred_ms=start_ms - 500))
        assert (await balance_at(clocked, user_id, start_ms)).credits_micros == 10**6


class History:
    """Random calls on one wallet, and what it showed at each moment before the next."""

    def __init__(self, served: Served, clock: ManualClock, user_id: str, seed: int) -> None:
        self._served = served
        self._clock = clock
        self._user_id = user_id
        self._random = random.Random(seed)
        self._holds: list[str] = []
        self.shown: dict[int, Balances] = {}

    async def run(self, steps: int) -> None:
        calls: list[Callable[[], Awaitable[object]]] = [
            self.grant,
            self.grant,
            self.use,
            self.hold,
            self.hold,
            self.release,
            self.consume,
        ]
        for _ in range(steps):
            await self._random.choice(calls)()
            # Time passes by itself more often than anyone asks for something.
            for _ in range(self._random.randint(1, 3)):
                await self.look()
                self._clock.advance(self._random.choice((1, 50, 500)))
        await self.look()

    async def look(self) -> None:
        """Reads leave nothing behind, so they disturb nothing."""
        self.shown[self._clock()] = balances(await self._served.wallet(self._user_id))

    async def grant(self) -> None:
        expires = at(self._clock() + self._random.randint(1, 3_000))
        never = self._random.random() < 0.2
        fields = {} if never else {"expires_time": expires}
        amount, priority = self._random.randint(1, 1_000_000), self._random.randint(0, 2)
        await self._served.grant(self._user_id, amount, priority=priority, **fields)

    async def consume(self) -> None:
        wallet = await self._served.wallet(self._user_id)
        if wallet.available_micros:
            amount = self._random.randint(1, 1 + wallet.available_micros // 2)
            await self._served.consume(self._user_id, amount)

    async def use(self) -> None:
        event = usage_event(
            self._user_id,
            occurred_ms=self._clock() - self._random.randint(0, 2_000),
            input_tokens=self._random.randint(1, 1_000),
            output_tokens=0,
        )
        await self._served.record(event)

    async def hold(self) -> None:
        request = process_pb.AuthorizeUsageRequest(
            request_id=new_key(),
            user_id=self._user_id,
            ai_model=MODEL,
            max_input_tokens=self._random.randint(1, 1_000),
            ttl=Duration(seconds=self._random.randint(1, 2)),
            disconnect_policy=self._random.choice(
                (hold_pb2.DISCONNECT_POLICY_RELEASE, hold_pb2.DISCONNECT_POLICY_CAPTURE_ALL)
            ),
        )
        answer = await self._served.process.AuthorizeUsage(request)
        if answer.allowed:
            self._holds.append(answer.hold.id)

    async def release(self) -> None:
        active = {hold.id for hold in (await self._served.wallet(self._user_id)).holds}
        held = [hold_id for hold_id in self._holds if hold_id in active]
        if held:
            request = process_pb.ReleaseHoldRequest(
                request_id=new_key(), hold_id=self._random.choice(held)
            )
            await self._served.process.ReleaseHold(request)


@pytest.mark.parametrize(
    "policy",
    [wallet_pb2.OVERDRAFT_POLICY_FLOOR_AT_ZERO, wallet_pb2.OVERDRAFT_POLICY_CARRY_DEBT],
)
async def test_any_history_is_told_as_it_was_shown(
    clocked: Served,
    manual_clock: ManualClock,
    policy: "wallet_pb2.OverdraftPolicy.ValueType",
) -> None:
    for seed in range(HISTORIES):
        user_id = await clocked.new_wallet()
        wallet = wallet_pb2.Wallet(user_id=user_id, overdraft_policy=policy)
        await clocked.wallets.UpdateWallet(wallet_service_pb2.UpdateWalletRequest(wallet=wallet))
        history = History(clocked, manual_clock, user_id, seed)
        await history.run(STEPS)
        for time_ms, shown in history.shown.items():
            told = balances(await balance_at(clocked, user_id, time_ms))
            assert told == shown, f"seed {seed}, {policy=}, {time_ms=}"
        await clocked.assert_sound(user_id)
