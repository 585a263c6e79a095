"""Recomputes a wallet from its entries, offline in spirit: nothing is taken on trust."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from bson import ObjectId

from server.kernel.clock import iso
from server.ledger.chain import link
from server.ledger.model import NEVER_MS, Entry, Grant, Wallet, new_wallet

MAX_DIFFERENCES = 1_000
"""A wrecked wallet differs everywhere; so many differences say enough."""


class Difference(NamedTuple):
    """What the entries add up to, and what is stored. `sequence` 0 is the wallet itself."""

    sequence: int
    field: str
    expected: str
    actual: str


class Verification(NamedTuple):
    """What was found, and how many entries were read."""

    differences: tuple[Difference, ...]
    entries_checked: int


class _Books:
    """A wallet as its entries alone make it."""

    def __init__(self, wallet: Wallet) -> None:
        self.chain = new_wallet(wallet.profile).chain
        self.sequence = self.credits_micros = self.held_micros = self.debt_micros = 0
        self.grants: dict[ObjectId, int] = {}
        self.as_made: dict[ObjectId, Grant] = {}
        self.differences: list[Difference] = []

    def take(self, entry: Entry) -> None:
        """Adds an entry and checks what it claims about itself."""
        place = self.sequence + 1
        self.sequence = place
        moved = sum(movement.credits_micros for movement in entry.movements)
        self.credits_micros += entry.signed_micros
        self.debt_micros += moved - entry.signed_micros
        for grant_id, micros in entry.movements:
            self.grants[grant_id] = self.grants.get(grant_id, 0) + micros
        if entry.grant is not None:
            self.as_made[entry.id] = entry.grant
        self.held_micros += entry.held_change_micros
        self.chain = link(self.chain, entry)
        self.compare(place, "sequence", place, entry.sequence)
        self.compare(place, "balance_after_micros", self.credits_micros, entry.balance_after_micros)
        self.compare(place, "debt_after_micros", self.debt_micros, entry.debt_after_micros)
        self.compare(place, "held_after_micros", self.held_micros, entry.held_after_micros)
        self.compare(place, "chain", self.chain.hex(), entry.chain.hex())
        # One broken link is one difference: the rest is held against what is stored.
        self.chain, self.sequence = entry.chain, entry.sequence
        self.credits_micros, self.debt_micros = entry.balance_after_micros, entry.debt_after_micros
        self.held_micros = entry.held_after_micros

    def compare(self, sequence: int, field: str, expected: object, actual: object) -> None:
        """Notes a difference, up to MAX_DIFFERENCES."""
        if expected != actual and len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(Difference(sequence, field, str(expected), str(actual)))


async def verify(wallet: Wallet, history: AsyncIterator[Entry]) -> Verification:
    """Every difference between the stored wallet and its entries up to its sequence."""
    books = _Books(wallet)
    checked = 0
    async for entry in history:
        books.take(entry)
        checked += 1
    books.compare(0, "sequence", checked, wallet.sequence)
    books.compare(0, "credits_micros", books.credits_micros, wallet.credits_micros)
    books.compare(0, "held_micros", books.held_micros, wallet.held_micros)
    books.compare(0, "debt_micros", books.debt_micros, wallet.debt_micros)
    books.compare(0, "chain", books.chain.hex(), wallet.chain.hex())
    stored = {grant.id: grant.remaining_micros for grant in wallet.grants}
    for grant_id in sorted({*books.grants, *stored}, key=str):
        expected, actual = books.grants.get(grant_id, 0), stored.get(grant_id, 0)
        books.compare(0, f"grants.{grant_id}.remaining_micros", expected, actual)
    for grant in wallet.grants:
        _compare_origin(books, grant)
    set_aside = sum(hold.held_micros for hold in wallet.holds)
    books.compare(0, "sum of holds", set_aside, wallet.held_micros)
    total = sum(stored.values()) - wallet.debt_micros
    books.compare(0, "grants less debt", total, wallet.credits_micros)
    return Verification(tuple(books.differences), checked)


def _compare_origin(books: _Books, grant: Grant) -> None:
    """A grant's terms say what burns when, so they are held against the entry that made it."""
    made = books.as_made.get(grant.id)
    if made is None:
        return
    for field in ("source", "original_micros", "priority", "sequence"):
        expected, actual = getattr(made, field), getattr(grant, field)
        books.compare(0, f"grants.{grant.id}.{field}", expected, actual)
    for field, expected, actual in (
        ("expires_time", made.expires_ms, grant.expires_ms),
        ("created_time", made.created_ms, grant.created_ms),
    ):
        books.compare(0, f"grants.{grant.id}.{field}", _moment(expected), _moment(actual))


def _moment(time_ms: int) -> str:
    return "never" if time_ms == NEVER_MS else iso(time_ms)
