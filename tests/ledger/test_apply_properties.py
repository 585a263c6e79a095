"""Any sequence of operations keeps the rules of money, step by step against a plain oracle."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import bson
import pytest
from bson import ObjectId
from bson.codec_options import CodecOptions
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.kernel.errors import DomainError, Reason
from server.kernel.principal import HOUSE_CLIENT
from server.ledger import apply, holds, packages
from server.ledger.chain import canonical, link
from server.ledger.documents import (
    WalletUpdate,
    entry_document,
    entry_from,
    wallet_document,
    wallet_from,
    wallet_update,
)
from server.ledger.expiry import expire
from server.ledger.grants import next_due
from server.ledger.model import (
    NEVER_MS,
    DecreaseReason,
    DisconnectPolicy,
    Entry,
    Hold,
    IncreaseSource,
    OverdraftPolicy,
    Terms,
    Wallet,
    WalletType,
    new_wallet,
)
from server.ledger.posting import Applied
from server.ledger.verify import verify
from tests.ledger.oracle import PlainHold, PlainWallet, Refused
from tests.ledger.rules import (
    NOW_MS,
    a_capture,
    a_consumption,
    a_grant,
    a_hold,
    a_policy,
    a_release,
    a_reversal,
    a_schedule,
    a_start,
    a_use,
    an_end,
    an_extension,
    empty_wallet,
    finish,
    some_terms,
    streamed,
)

# Small ones, so that sums meet exactly, expiries coincide and balances run dry.
amounts = st.integers(1, 12) | st.integers(1, 10**12)
expiries = st.none() | st.integers(1, 20)
packages_sold = st.builds(
    some_terms, st.integers(0, 4), st.integers(0, 5) | amounts, st.integers(1, 20)
)
labels = st.none() | st.dictionaries(st.text("ab.$/", min_size=1), st.text(max_size=3), min_size=1)

_AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
_IRREVERSIBLE = (
    DecreaseReason.EXPIRY,
    DecreaseReason.REVERSAL,
    DecreaseReason.HOLD,
    DecreaseReason.PACKAGE_END,
)
_IRREVERSIBLE_SOURCES = (
    IncreaseSource.REVERSAL,
    IncreaseSource.RELEASE,
    IncreaseSource.HOLD_EXPIRY,
)


def as_read(wallet: Wallet) -> Wallet:
    """As a row gives it back: it does not know which grants it keeps over their time."""
    return wallet._replace(next_expiry_ms=next_due(wallet.grants, wallet.holds, wallet.profile, 0))


def stored(document: dict[str, Any]) -> dict[str, Any]:
    """What MongoDB gives back for it."""
    return bson.decode(bson.encode(document), _AWARE)


def updated(document: dict[str, Any], update: WalletUpdate) -> dict[str, Any]:
    """The document after a guarded update, by MongoDB's meaning of $inc and $set."""
    assert document["_id"] == update.id
    assert (document["user_id"], document["version"]) == (update.user_id, update.version)
    document = copy.deepcopy(document)
    for path, by in update.change["$inc"].items():
        at: Any = document
        *way, last = path.split(".")
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        at[last] += by
    document.update(update.change["$set"])
    return document


def by_themselves(entries: Iterable[Entry]) -> list[ObjectId]:
    """Those that began a package without anyone asking."""
    return [e.id for e in entries if e.period and e.source and e.cause.client_id == HOUSE_CLIENT]


class WalletMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.now_ms = NOW_MS
        self.wallet = empty_wallet()
        self.written = self.wallet
        self.entries: list[Entry] = []
        self.reversed: set[int] = set()
        self.oracle = PlainWallet()

    def run(
        self,
        operation: Callable[[Wallet, Any, int], Applied],
        asked: Any,
        oracle: Callable[[PlainWallet], Any],
    ) -> Entry | None:
        """Both sides do it, or both refuse. Returns the operation's own entry."""
        before, expected = self.wallet, copy.deepcopy(self.oracle)
        expected.pass_time(self.now_ms)
        try:
            oracle(expected)
        except Refused:
            with pytest.raises(DomainError) as refusal:
                operation(self.wallet, asked, self.now_ms)
            assert refusal.value.reason in (
                Reason.INSUFFICIENT_CREDITS,
                Reason.WALLET_EXPIRED,
                Reason.SUBSCRIPTION_NOT_FOUND,
            )
            assert self.wallet == before
            return None
        applied = operation(self.wallet, asked, self.now_ms)
        expected.christen(by_themselves(applied.entries))
        self.oracle, self.wallet = expected, applied.wallet
        self.entries += applied.entries
        return applied.entry

    @rule(
        amount=amounts,
        priority=st.integers(0, 2),
        expiry=expiries,
        source=st.sampled_from(list(IncreaseSource)[:5]),
    )
    def grant(self, amount: int, priority: int, expiry: int | None, source: int) -> None:
        expires_ms = NEVER_MS if expiry is None else self.now_ms + expiry
        asked = a_grant(amount, priority=priority, expires_ms=expires_ms, source=source)
        entry = self.run(
            apply.add_grant, asked, lambda o: o.grant(asked.id, amount, priority, expires_ms)
        )
        assert entry is not None
        assert entry.signed_micros == amount

    @rule(amount=amounts)
    def consume(self, amount: int) -> None:
        entry = self.run(apply.consume, a_consumption(amount), lambda o: o.consume(amount))
        assert entry is None or entry.signed_micros == -amount

    @rule(price=amounts | st.just(0), tags=labels)
    def use(self, price: int, tags: dict[str, str] | None) -> None:
        unpaid: list[int] = []
        entry = self.run(
            apply.use, a_use(price, labels=tags), lambda o: unpaid.append(o.use(price))
        )
        assert entry is not None
        assert [entry.shortfall_micros] == unpaid
        assert entry.shortfall_micros - entry.signed_micros == price

    @rule(
        amount=st.integers(0, 6) | amounts,
        ttl=st.integers(1, 40),
        policy=st.sampled_from(DisconnectPolicy),
        tags=labels,
    )
    def hold(
        self, amount: int, ttl: int, policy: DisconnectPolicy, tags: dict[str, str] | None
    ) -> None:
        asked = a_hold(amount, ttl, policy=policy, labels=tags)
        plain = PlainHold(asked.hold.id, amount, self.now_ms + ttl, policy)
        entry = self.run(holds.place_hold, asked, lambda o: o.place(plain))
        assert entry is None or (entry.signed_micros, entry.held_change_micros) == (0, amount)

    @precondition(lambda self: self.wallet.holds)
    @rule(data=st.data(), amount=amounts, ttl=st.integers(1, 20), reported=st.none() | amounts)
    def extend(self, data: st.DataObject, amount: int, ttl: int, reported: int | None) -> None:
        hold = self.some_hold(data)
        if hold is not None:
            asked = an_extension(hold.id, amount, ttl, reported)
            expires_ms = self.now_ms + ttl
            self.run(
                holds.extend_hold, asked, lambda o: o.extend(hold.id, amount, expires_ms, reported)
            )

    @precondition(lambda self: self.wallet.holds)
    @rule(data=st.data(), price=st.none() | amounts | st.just(0))
    def capture(self, data: st.DataObject, price: int | None) -> None:
        hold = self.some_hold(data)
        if hold is not None:
            unpaid: list[int] = []
            entry = self.run(
                holds.capture_hold,
                a_capture(hold.id, price),
                lambda o: unpaid.append(o.capture(hold.id, price)),
            )
            assert entry is not None
            assert [entry.shortfall_micros] == unpaid

    @precondition(lambda self: self.wallet.holds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hold = self.some_hold(data)
        if hold is not None:
            entry = self.run(holds.release_hold, a_release(hold.id), lambda o: o.release(hold.id))
            assert entry is not None
            assert (entry.signed_micros, entry.held_change_micros) == (0, -hold.held_micros)

    def some_hold(self, data: st.DataObject) -> Hold | None:
        """An active one; None for one whose time is over, which nothing can be done with."""
        hold: Hold = data.draw(st.sampled_from(self.wallet.holds))
        if hold.expires_ms > self.now_ms:
            return hold
        ends: tuple[tuple[Any, Any], ...] = (
            (holds.capture_hold, a_capture(hold.id, 1)),
            (holds.release_hold, a_release(hold.id)),
        )
        for end, asked in ends:
            with pytest.raises(DomainError) as refusal:
                end(self.wallet, asked, self.now_ms)
            assert refusal.value.reason is Reason.HOLD_ENDED
        return None

    @rule(terms=packages_sold, onboarding=st.booleans())
    def start_package(self, terms: Terms, onboarding: bool) -> None:
        asked = a_start(terms, is_onboarding=onboarding)
        again = onboarding and self.wallet.profile.initial_package_given
        entry = self.run(
            packages.start_package,
            asked,
            lambda o: o.start(asked.id, terms, self.now_ms, onboarding=onboarding),
        )
        assert (entry is None) == again
        assert entry is None or entry.signed_micros == terms.credits_micros

    @rule(terms=packages_sold)
    def schedule_package(self, terms: Terms) -> None:
        self.run(packages.schedule_package, a_schedule(terms), lambda o: o.schedule(terms))

    @rule(at_once=st.booleans())
    def end_package(self, at_once: bool) -> None:
        entry = self.run(packages.end_package, an_end(at_once), lambda o: o.end(at_once))
        assert entry is None or entry.signed_micros == 0

    @rule(policy=st.sampled_from(OverdraftPolicy))
    def switch_policy(self, policy: OverdraftPolicy) -> None:
        self.run(apply.change_settings, a_policy(policy), lambda o: o.switch(policy))

    @rule(milliseconds=st.integers(1, 15))
    def pass_time(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.entries) - 1))
        original = self.entries[place]
        asked = a_reversal(original, self.entries)
        void = original.grant is not None and original.grant.expires_ms <= self.now_ms
        if (
            original.source in _IRREVERSIBLE_SOURCES
            or original.decrease_reason in _IRREVERSIBLE
            or void
        ):
            with pytest.raises(DomainError) as refusal:
                apply.reverse(self.wallet, asked, self.now_ms)
            assert refusal.value.reason is Reason.NOT_REVERSIBLE
            return
        if place in self.reversed:
            return
        entry = self.run(
            apply.reverse,
            asked,
            lambda o: o.take_back(original) if original.source else o.give_back(original, asked.id),
        )
        if entry is not None:
            self.reversed.add(place)
            assert entry.signed_micros == -original.signed_micros
            assert entry.cause.reverses_id == original.id

    @rule()
    def commit(self) -> None:
        """What a batch does to the row comes to the wallet that the batch made in memory."""
        if self.wallet == self.written:
            return
        row = updated(wallet_document(self.written), wallet_update(self.written, self.wallet))
        after = self.wallet.at_version(self.written.version + 1)
        assert wallet_from(stored(row)) == as_read(after)
        self.wallet = self.written = after

    @rule()
    def restart(self) -> None:
        """Nothing is forgotten with the process."""
        again = wallet_from(stored(wallet_document(self.wallet)))
        assert again == as_read(self.wallet)
        self.commit()
        self.wallet = self.written = wallet_from(stored(wallet_document(self.wallet)))

    @invariant()
    def balance_is_grants_less_debt_is_entries(self) -> None:
        wallet = self.wallet
        left = sum(grant.remaining_micros for grant in wallet.grants)
        assert wallet.credits_micros == left - wallet.debt_micros
        assert wallet.credits_micros == sum(entry.signed_micros for entry in self.entries)
        assert wallet.held_micros == sum(hold.held_micros for hold in wallet.holds)
        assert wallet.held_micros <= left
        assert wallet.debt_micros >= 0

    @invariant()
    def below_zero_only_by_a_debt_that_has_eaten_every_grant(self) -> None:
        wallet = self.wallet
        assert wallet.credits_micros >= 0 or wallet.debt_micros > 0
        left = sum(grant.remaining_micros for grant in wallet.grants)
        assert not wallet.debt_micros or left <= wallet.held_micros

    @invariant()
    def agrees_with_the_oracle(self) -> None:
        wallet, oracle = self.wallet, self.oracle
        assert [(g.id, g.remaining_micros) for g in wallet.grants] == oracle.in_burn_order()
        assert (wallet.credits_micros, wallet.debt_micros) == (oracle.credits, oracle.debt)
        profile, package = wallet.profile, oracle.package
        running = profile.subscription
        assert (profile.package_id, profile.expires_ms) == (oracle.package_id, oracle.expires_ms)
        assert (profile.type == WalletType.PAID) == oracle.is_paid
        assert (running is None) == (package is None)
        if running is not None and package is not None:
            assert (running.terms, running.next) == (package.terms, package.next)
            assert running.is_canceled == package.canceled
        held = [(hold.id, hold.held_micros, hold.expires_ms) for hold in wallet.holds]
        assert held == [(hold.id, hold.amount, hold.expires_ms) for hold in oracle.holds]

    @invariant()
    def reads_expire_what_is_due(self) -> None:
        due, oracle = expire(self.wallet, self.now_ms), copy.deepcopy(self.oracle)
        seen = due.wallet
        oracle.pass_time(self.now_ms)
        oracle.christen(by_themselves(due.entries))
        assert (seen.credits_micros, seen.held_micros) == (oracle.credits, oracle.held)
        assert [(g.id, g.remaining_micros) for g in seen.grants] == oracle.in_burn_order()

    @invariant()
    def grants_are_whole(self) -> None:
        wallet = self.wallet
        for grant in wallet.grants:
            assert 0 < grant.remaining_micros <= grant.original_micros
        ends = [grant.expires_ms for grant in wallet.grants]
        ends += [hold.expires_ms for hold in wallet.holds]
        ends.append(wallet.profile.period_ends_ms)
        assert wallet.next_expiry_ms in {*ends, NEVER_MS}
        # Nothing happens before its time, and nothing twice.
        assert expire(wallet, min(wallet.next_expiry_ms - 1, self.now_ms)).entries == ()
        tidied = expire(wallet, self.now_ms).wallet
        assert expire(tidied, self.now_ms).entries == ()

    @invariant()
    def entries_follow_each_other(self) -> None:
        chain, balance, debt, held = new_wallet(self.wallet.profile).chain, 0, 0, 0
        for number, entry in enumerate(self.entries, start=1):
            assert entry.sequence == number
            moved = sum(movement.credits_micros for movement in entry.movements)
            balance += entry.signed_micros
            debt += moved - entry.signed_micros
            held += entry.held_change_micros
            chain = link(chain, entry)
            assert (entry.balance_after_micros, entry.debt_after_micros) == (balance, debt)
            assert entry.held_after_micros == held
            assert entry.chain == chain
            assert bool(entry.source) != bool(entry.decrease_reason)
            assert all(movement.credits_micros for movement in entry.movements)
        assert (self.wallet.sequence, self.wallet.chain) == (len(self.entries), chain)

    @invariant()
    def books_sum_to_zero(self) -> None:
        books: Counter[str] = Counter()
        for entry in self.entries:
            books[entry.counter_account] -= entry.signed_micros
        assert sum(books.values()) + self.wallet.credits_micros == 0
        for account, micros in self.oracle.books.items():
            if not account.startswith("source:"):
                assert books[account] == micros

    def teardown(self) -> None:
        if not hasattr(self, "entries"):
            return
        found = finish(verify(self.wallet, streamed(self.entries)))
        assert not found.differences
        assert found.entries_checked == len(self.entries)
        for entry in self.entries:
            again = entry_from(stored(entry_document(entry)))
            assert canonical(again) == canonical(entry)
            kept = ("id", "user_id", "email", "plan_id")
            for name in kept:
                assert getattr(again.profile, name) == getattr(entry.profile, name)
            assert again._replace(profile=entry.profile) == entry


TestWallet = WalletMachine.TestCase
TestWallet.settings = settings(
    max_examples=800,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
