"""GetTrialBalance: every account over a period, and zero only if the books are right."""

import random
from collections import Counter

import pytest
from bson import ObjectId
from zaaz.ledger.v1 import credits_transaction_pb2, wallet_pb2
from zaaz.wallet.v1 import statement_service_pb2 as pb
from zaaz.wallet.v1 import wallet_service_pb2

from tests.conftest import MongoClient
from tests.ledger.calls import at, refused
from tests.serving import ManualClock, Served, serving, usage_event
from tests.wallet.statements import live_through_all

DATABASE = "test_trial_balance"


async def trial_balance(served: Served, **times: int) -> pb.GetTrialBalanceResponse:
    request = pb.GetTrialBalanceRequest(**{name: at(ms) for name, ms in times.items()})
    answer: pb.GetTrialBalanceResponse = await served.statements.GetTrialBalance(request)
    return answer


def accounts(found: pb.GetTrialBalanceResponse) -> dict[str, tuple[int, int]]:
    """Debit and credit by name."""
    for account in found.accounts:
        assert account.net_micros == account.credit_micros - account.debit_micros
    assert found.total_micros == sum(account.net_micros for account in found.accounts)
    return {a.account: (a.debit_micros, a.credit_micros) for a in found.accounts}


def signed(transaction: credits_transaction_pb2.CreditsTransaction) -> int:
    increase = transaction.type == credits_transaction_pb2.TRANSACTION_TYPE_INCREASE
    return transaction.credits_micros if increase else -transaction.credits_micros


class TestSound:
    async def test_what_wallets_gain_others_give(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(10)
        await clocked.consume(user_id, 4)
        await clocked.grant(user_id, 3, expires_time=at(manual_clock() + 1), source=1)
        manual_clock.advance(1)
        await clocked.consume(user_id, 1)
        found = await trial_balance(clocked)
        assert accounts(found) == {
            "breakage:expiry": (0, 3),
            "revenue:consumption": (0, 5),
            "source:bonus": (10, 0),
            "source:payment": (3, 0),
            "wallets": (8, 13),
        }
        assert (found.total_micros, found.transactions) == (0, 5)
        assert {a.account: a.transactions for a in found.accounts}["wallets"] == 5

    async def test_nothing(self, clocked: Served, manual_clock: ManualClock) -> None:
        found = await trial_balance(clocked)
        assert (accounts(found), found.total_micros, found.transactions) == ({}, 0, 0)
        assert (found.start_time, found.end_time) == (at(0), at(manual_clock() + 1))

    async def test_only_what_was_written_in_the_period(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        users, times = [await clocked.new_wallet(), await clocked.new_wallet()], []
        for amount in (1, 10, 100):
            manual_clock.advance(1_000)
            times.append(manual_clock())
            for user_id in users:
                await clocked.grant(user_id, amount)
        found = await trial_balance(clocked, start_time=times[1], end_time=times[2])
        assert accounts(found) == {"source:bonus": (20, 0), "wallets": (0, 20)}
        assert (found.start_time, found.end_time) == (at(times[1]), at(times[2]))
        assert found.total_micros == 0

    async def test_a_random_mix_over_any_period(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        users = await _random_mix(clocked, manual_clock, random.Random(7))
        users.append(await live_through_all(clocked, manual_clock))
        written = [row for user_id in users for row in await clocked.transactions(user_id)]
        moments = sorted({row.created_time.ToMilliseconds() for row in written})
        chance = random.Random(8)
        for _ in range(20):
            start_ms, end_ms = sorted(chance.sample(moments, 2))
            found = await trial_balance(clocked, start_time=start_ms, end_time=end_ms)
            inside = [
                row for row in written if start_ms <= row.created_time.ToMilliseconds() < end_ms
            ]
            assert found.total_micros == 0
            assert found.transactions == len(inside)
            expected: Counter[str] = Counter()
            for row in inside:
                expected[row.counter_account] -= signed(row)
                expected["wallets"] += signed(row)
            assert {a.account: a.net_micros for a in found.accounts} == dict(expected)
        assert len(accounts(await trial_balance(clocked))) >= 6


async def _random_mix(served: Served, clock: ManualClock, chance: random.Random) -> list[str]:
    """Users of wallets with grants, expiries, uses and debts."""
    users = [await served.new_wallet() for _ in range(4)]
    wallet = wallet_pb2.Wallet(
        user_id=users[0], overdraft_policy=wallet_pb2.OVERDRAFT_POLICY_CARRY_DEBT
    )
    await served.wallets.UpdateWallet(wallet_service_pb2.UpdateWalletRequest(wallet=wallet))
    for _ in range(60):
        user_id = chance.choice(users)
        clock.advance(chance.randint(0, 500))
        if chance.random() < 0.5:
            expires = at(clock() + chance.randint(1, 5_000))
            await served.grant(user_id, chance.randint(1, 10**6), expires_time=expires)
        else:
            await served.record(usage_event(user_id, occurred_ms=clock()))
    return users


class TestWrong:
    """Whatever was changed behind the ledger's back keeps the sum from zero."""

    @pytest.mark.parametrize(
        ("sequence", "change"),
        [
            (1, {"$inc": {"signed_micros": 1}}),
            (2, {"$inc": {"signed_micros": 1}}),
            (3, {"$inc": {"signed_micros": -1}}),
            (3, {"$inc": {"balance_after_micros": 1}}),
            (2, None),
        ],
    )
    async def test_is_told_by_the_sum(
        self,
        mongo_url: str,
        mongo_client: MongoClient,
        sequence: int,
        change: dict[str, dict[str, int]] | None,
    ) -> None:
        async with serving(mongo_url, DATABASE) as served:
            user_id = await served.new_wallet(10)
            await served.consume(user_id, 2)
            await served.consume(user_id, 3)
            assert (await trial_balance(served)).total_micros == 0
            entries = mongo_client[DATABASE]["credits_transactions"]
            where = {"user_id": ObjectId(user_id), "sequence": sequence}
            if change is None:
                await entries.delete_one(where)
            else:
                await entries.update_one(where, change)
            assert (await trial_balance(served)).total_micros != 0
        await mongo_client.drop_database(DATABASE)


class TestBounds:
    async def test_a_period_with_too_much_is_refused(
        self, clocked: Served, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.ledger.trial_balance.MAX_ENTRIES", 2)
        user_id = await clocked.new_wallet(10)
        await clocked.grant(user_id, 1)
        assert (await trial_balance(clocked)).transactions == 2
        manual_clock.advance(10)
        await clocked.grant(user_id, 1)
        with refused("FIELD_INVALID") as refusal:
            await trial_balance(clocked)
        assert refusal.metadata["field"] == "start_time"
        assert (await trial_balance(clocked, start_time=manual_clock())).transactions == 1

    async def test_what_takes_too_long_is_given_up(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await served.new_wallet(1)
        many = [{"$set": {"n": {"$range": [0, 100_000]}}}, {"$unwind": "$n"}]
        stages = [*many, *many, {"$count": "n"}]
        monkeypatch.setattr("server.ledger.trial_balance._pipeline", lambda _: stages)
        monkeypatch.setattr("server.ledger.trial_balance.MAX_MS", 50)
        with refused("DEADLINE_EXCEEDED") as refusal:
            await trial_balance(served)
        assert refusal.metadata == {"limit_seconds": "0.05"}

    async def test_sums_beyond_int64_are_refused(self, clocked: Served) -> None:
        for _ in range(2):
            await clocked.new_wallet(2**63 - 1)
        with refused("AMOUNT_OUT_OF_RANGE"):
            await trial_balance(clocked)

    async def test_refuses_what_is_no_period(self, served: Served) -> None:
        with refused("FIELD_INVALID"):
            await trial_balance(served, start_time=2_000, end_time=1_000)
        with refused("FIELD_INVALID"):
            await trial_balance(served, end_time=-1)
