"""Single rules of money that the state machine does not reach."""

from collections.abc import Callable
from typing import Any

import pytest

from server.kernel.errors import DomainError, Reason
from server.kernel.ids import derived_id
from server.kernel.money import MAX_MICROS
from server.ledger import apply
from server.ledger.draft import Draft, Known
from server.ledger.expiry import expire
from server.ledger.model import Entry, OverdraftPolicy, Wallet
from server.ledger.posting import Applied
from tests.ledger.rules import (
    NOW_MS,
    USER,
    a_consumption,
    a_grant,
    a_policy,
    a_reversal,
    a_use,
    empty_wallet,
)

LATER_MS = NOW_MS + 1_000


class Ledger:
    """A wallet and its entries, by the rules alone."""

    def __init__(self, **profile: Any) -> None:
        self.wallet = empty_wallet(**profile)
        self.entries: list[Entry] = []

    def run(
        self, rule: Callable[[Wallet, Any, int], Applied], asked: Any, now_ms: int = NOW_MS
    ) -> Applied:
        applied = rule(self.wallet, asked, now_ms)
        self.wallet = applied.wallet
        self.entries += applied.entries
        return applied

    def refuses(
        self, rule: Callable[[Wallet, Any, int], Applied], asked: Any, reason: Reason
    ) -> dict[str, str]:
        before = self.wallet
        with pytest.raises(DomainError) as refusal:
            rule(self.wallet, asked, NOW_MS)
        assert refusal.value.reason is reason
        assert self.wallet == before
        return refusal.value.metadata


class TestExpiredSubscription:
    def test_refuses_consumption_and_bills_usage(self) -> None:
        ledger = Ledger(expires_ms=NOW_MS)
        ledger.run(apply.add_grant, a_grant(10))
        ledger.refuses(apply.consume, a_consumption(1), Reason.WALLET_EXPIRED)
        assert ledger.run(apply.use, a_use(4)).entries[-1].signed_micros == -4

    def test_counts_from_its_moment_on(self) -> None:
        ledger = Ledger(expires_ms=NOW_MS + 1)
        ledger.run(apply.add_grant, a_grant(10))
        ledger.run(apply.consume, a_consumption(1))


class TestRange:
    def test_of_a_balance(self) -> None:
        ledger = Ledger()
        ledger.run(apply.add_grant, a_grant(MAX_MICROS))
        field = ledger.refuses(apply.add_grant, a_grant(1), Reason.AMOUNT_OUT_OF_RANGE)
        assert field == {"field": "credits_micros"}

    def test_of_a_debt(self) -> None:
        ledger = Ledger()
        ledger.run(apply.change_settings, a_policy(OverdraftPolicy.CARRY_DEBT))
        ledger.run(apply.use, a_use(MAX_MICROS))
        field = ledger.refuses(apply.use, a_use(1), Reason.AMOUNT_OUT_OF_RANGE)
        assert field == {"field": "debt_micros"}
        ledger.run(apply.add_grant, a_grant(MAX_MICROS))
        assert (ledger.wallet.credits_micros, ledger.wallet.debt_micros) == (0, 0)

    def test_of_a_reversal(self) -> None:
        ledger = Ledger()
        ledger.run(apply.add_grant, a_grant(MAX_MICROS))
        consumed = ledger.run(apply.consume, a_consumption(1)).entries[-1]
        ledger.run(apply.add_grant, a_grant(1))
        asked = a_reversal(consumed, ledger.entries)
        ledger.refuses(apply.reverse, asked, Reason.AMOUNT_OUT_OF_RANGE)


class TestGrants:
    def test_expire_in_the_future_only(self) -> None:
        ledger = Ledger()
        asked = a_grant(1, expires_ms=NOW_MS)
        assert ledger.refuses(apply.add_grant, asked, Reason.FIELD_INVALID) == {
            "field": "expires_time"
        }

    def test_a_reversal_takes_its_own_grant_before_those_that_burn_first(self) -> None:
        ledger = Ledger()
        kept = ledger.run(apply.add_grant, a_grant(10)).entries[-1]
        taken = ledger.run(apply.add_grant, a_grant(10, priority=9)).entries[-1]
        ledger.run(apply.reverse, a_reversal(taken, ledger.entries))
        assert [grant.id for grant in ledger.wallet.grants] == [kept.id]


class TestExpiry:
    def test_waits_for_held_credits(self) -> None:
        """Held credits outlive their grant; only what is free expires."""
        ledger = Ledger()
        ledger.run(apply.add_grant, a_grant(10, expires_ms=LATER_MS))
        held = ledger.wallet._replace(held_micros=4)
        after = expire(held, LATER_MS)
        assert [entry.signed_micros for entry in after.entries] == [-6]
        assert after.wallet.grants[0].remaining_micros == 4
        assert expire(after.wallet, LATER_MS + 1).entries == ()

    def test_ids_are_the_same_for_whoever_finds_it_due(self) -> None:
        """Two processes that expire the same grant meet at its id."""
        ledger = Ledger()
        ledger.run(apply.add_grant, a_grant(10, expires_ms=LATER_MS))
        one, other = (expire(ledger.wallet, LATER_MS + late) for late in (0, 5))
        assert one.entries[0].id == other.entries[0].id

    def test_ids_are_not_those_of_any_clients_usage(self) -> None:
        """Clients choose their names, their users' ids and their keys freely."""
        ledger = Ledger()
        ledger.run(apply.add_grant, a_grant(10, expires_ms=LATER_MS))
        grant = ledger.wallet.grants[0]
        (entry,) = expire(ledger.wallet, LATER_MS).entries
        assert entry.id != derived_id("expiry", str(grant.id), "2")


class TestClockThatStepsBack:
    def test_entries_stay_in_the_order_of_time(self) -> None:
        """A wallet's time does not run backwards, whatever the clock of its committer does."""
        ledger = Ledger()
        ledger.run(apply.add_grant, a_grant(10), LATER_MS)
        draft = Draft({USER: ledger.wallet}, {}, Known(), NOW_MS)
        assert draft.time_of(ledger.wallet) == LATER_MS
        assert Draft({}, {}, Known(), LATER_MS + 1).time_of(ledger.wallet) == LATER_MS + 1
