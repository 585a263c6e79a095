"""The rules of money said once more, as plainly as can be, to hold `server.ledger.apply` against.

Mutable, slow and without entries: lists of grants, a debt, and sums by account.
"""

from collections import Counter
from dataclasses import dataclass, field

from bson import ObjectId

from server.ledger.model import NEVER_MS, Entry, OverdraftPolicy


class Refused(Exception):  # noqa: N818 - it names what happened
    """The operation has no effect."""


@dataclass
class PlainGrant:
    id: ObjectId
    left: int
    priority: int
    expires_ms: int
    age: int


@dataclass
class PlainWallet:
    grants: list[PlainGrant] = field(default_factory=list)
    debt: int = 0
    carries_debt: bool = False
    books: Counter[str] = field(default_factory=Counter)
    made: dict[ObjectId, PlainGrant] = field(default_factory=dict)

    @property
    def free(self) -> int:
        return sum(grant.left for grant in self.grants)

    @property
    def credits(self) -> int:
        return self.free - self.debt

    def in_burn_order(self) -> list[tuple[ObjectId, int]]:
        return [(grant.id, grant.left) for grant in sorted(self.grants, key=_burns_first)]

    def pass_time(self, now_ms: int) -> None:
        for grant in list(self.grants):
            if grant.expires_ms <= now_ms:
                self.books["breakage:expiry"] += grant.left
                self.grants.remove(grant)

    def grant(self, grant_id: ObjectId, amount: int, priority: int, expires_ms: int) -> int:
        """Returns what was left of it once the debt was repaid."""
        repaid = min(self.debt, amount)
        self.debt -= repaid
        self._make(grant_id, amount - repaid, priority, expires_ms)
        return amount - repaid

    def consume(self, amount: int) -> None:
        if self.credits < amount:
            raise Refused
        self._burn(amount)
        self.books["revenue:consumption"] += amount

    def use(self, price: int) -> int:
        """Returns what nobody pays."""
        paid = min(price, self.free)
        self._burn(paid)
        owed = price - paid if self.carries_debt else 0
        self.debt += owed
        self.books["revenue:usage"] += paid + owed
        return price - paid - owed

    def take_back(self, original: Entry) -> None:
        amount = original.signed_micros
        if self.credits < amount and not self.carries_debt:
            raise Refused
        own = [grant for grant in self.grants if grant.id == original.id]
        first = min(amount, sum(grant.left for grant in own))
        for grant in own:
            self._take(grant, first)
        burned = min(amount - first, self.free)
        self._burn(burned)
        self.debt += amount - first - burned
        self.books[original.counter_account] += amount

    def give_back(self, original: Entry, reversal_id: ObjectId) -> None:
        amount = -original.signed_micros
        self.books[original.counter_account] -= amount
        burned = {move.grant_id: -move.credits_micros for move in original.movements}
        owed = amount - sum(burned.values())
        repaid = min(self.debt, amount)
        self.debt -= repaid
        rest = amount - repaid
        if owed > repaid:
            self._make(reversal_id, owed - repaid, 0, NEVER_MS)
            rest -= owed - repaid
        for grant_id, micros in burned.items():
            back = min(micros, rest)
            rest -= back
            self._return(grant_id, back)
        assert rest == 0

    def switch(self, policy: OverdraftPolicy) -> None:
        self.carries_debt = policy is OverdraftPolicy.CARRY_DEBT

    def _make(self, grant_id: ObjectId, left: int, priority: int, expires_ms: int) -> None:
        grant = PlainGrant(grant_id, left, priority, expires_ms, age=len(self.made))
        self.made[grant_id] = grant
        if left:
            self.grants.append(grant)

    def _return(self, grant_id: ObjectId, back: int) -> None:
        grant = self.made[grant_id]
        if not back:
            return
        if not any(kept is grant for kept in self.grants):
            grant.left = 0
            self.grants.append(grant)
        grant.left += back

    def _burn(self, amount: int) -> None:
        while amount:
            grant = min(self.grants, key=_burns_first)
            taken = min(amount, grant.left)
            self._take(grant, taken)
            amount -= taken

    def _take(self, grant: PlainGrant, amount: int) -> None:
        grant.left -= amount
        if not grant.left:
            self.grants.remove(grant)


def _burns_first(grant: PlainGrant) -> tuple[int, int, int]:
    return (grant.priority, grant.expires_ms, grant.age)
