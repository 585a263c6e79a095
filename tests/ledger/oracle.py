"""The rules of money said once more, as plainly as can be, to hold `server.ledger.apply` against.

Mutable, slow and without entries: lists of grants, a debt, and sums by account.
"""

from collections import Counter
from dataclasses import dataclass, field

from bson import ObjectId

from server.ledger.model import NEVER_MS, DisconnectPolicy, Entry, OverdraftPolicy, Terms


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
class PlainHold:
    id: ObjectId
    amount: int
    expires_ms: int
    policy: DisconnectPolicy
    reported: int | None = None


@dataclass
class PlainPackage:
    terms: Terms
    next: Terms | None = None
    canceled: bool = False


@dataclass
class PlainWallet:
    grants: list[PlainGrant] = field(default_factory=list)
    debt: int = 0
    carries_debt: bool = False
    books: Counter[str] = field(default_factory=Counter)
    made: dict[ObjectId, PlainGrant] = field(default_factory=dict)
    holds: list[PlainHold] = field(default_factory=list)
    now_ms: int = 0
    package_id: ObjectId | None = None
    package: PlainPackage | None = None
    expires_ms: int = NEVER_MS
    is_paid: bool = False
    onboarded: bool = False
    nameless: list[PlainGrant] = field(default_factory=list)

    @property
    def granted(self) -> int:
        return sum(grant.left for grant in self.grants)

    @property
    def credits(self) -> int:
        return self.granted - self.debt

    @property
    def held(self) -> int:
        return sum(hold.amount for hold in self.holds)

    @property
    def free(self) -> int:
        return max(0, self.credits - self.held)

    def in_burn_order(self) -> list[tuple[ObjectId, int]]:
        return [(grant.id, grant.left) for grant in sorted(self.grants, key=_burns_first)]

    def pass_time(self, now_ms: int) -> None:
        """Moment by moment: first the holds that end then, then the grants, then the package."""
        seen: set[int] = set()
        while moments := {moment for moment in self._ends() if moment <= now_ms} - seen:
            self.now_ms = min(moments)
            seen.add(self.now_ms)
            for hold in [hold for hold in self.holds if hold.expires_ms <= self.now_ms]:
                self._run_out(hold)
            self._void()
            if self.package is not None and self.expires_ms <= self.now_ms:
                self._end_package()
        self.now_ms = now_ms

    def _ends(self) -> list[int]:
        ends = [grant.expires_ms for grant in self.grants]
        ends += [hold.expires_ms for hold in self.holds]
        return ends if self.package is None else [*ends, self.expires_ms]

    def _end_package(self) -> None:
        assert self.package is not None
        following, self.package, self.is_paid = self.package.next, None, False
        if following is not None:
            unnamed = ObjectId()
            self.start(unnamed, following, self.now_ms)
            self.nameless.append(self.made[unnamed])

    def start(
        self, grant_id: ObjectId, terms: Terms, now_ms: int, *, onboarding: bool = False
    ) -> None:
        if onboarding and self.onboarded:
            return
        self.onboarded = self.onboarded or onboarding
        current = None if self.package is None else self.package.terms
        beside = current is not None and current.is_subscription and not terms.is_subscription
        only_credits = onboarding and self.package is not None
        if only_credits or beside:
            ends_ms = now_ms + terms.duration_ms
            if terms.is_paid and current is not None and not current.is_paid and not only_credits:
                self.is_paid, self.expires_ms = True, max(self.expires_ms, ends_ms)
            self.grant(grant_id, terms.credits_micros, 0, ends_ms)
            return
        begins_ms = now_ms
        if terms.package_id == self.package_id:
            begins_ms = max(now_ms, self.expires_ms)
        self.package_id, self.package = terms.package_id, PlainPackage(terms)
        self.expires_ms, self.is_paid = begins_ms + terms.duration_ms, terms.is_paid
        self.grant(grant_id, terms.credits_micros, 0, self.expires_ms)

    def schedule(self, terms: Terms) -> None:
        if self.package is None:
            raise Refused
        self.package.next, self.package.canceled = terms, False

    def end(self, at_once: bool) -> None:
        if self.package is None:
            raise Refused
        self.package.next, self.package.canceled = None, True
        if at_once:
            self.package, self.is_paid, self.expires_ms = None, False, self.now_ms

    def christen(self, entry_ids: list[ObjectId]) -> None:
        """Gives the grants that came by themselves the ids that they have."""
        for grant, entry_id in zip(self.nameless, entry_ids, strict=True):
            self.made[entry_id] = grant
            grant.id = entry_id
        self.nameless = []

    def _run_out(self, hold: PlainHold) -> None:
        if hold.policy is DisconnectPolicy.CAPTURE_ALL:
            self._bill(hold, hold.amount)
        elif hold.policy is DisconnectPolicy.CAPTURE_REPORTED and hold.reported is not None:
            self._bill(hold, hold.reported)
        else:
            self._free(hold)

    def _void(self) -> None:
        """Grants that are over are there for holds alone."""
        over = sorted(self._over(), key=_burns_first)
        excess = sum(grant.left for grant in over) - self.held
        for grant in over:
            taken = max(0, min(grant.left, excess))
            self.books["breakage:expiry"] += taken
            self._take(grant, taken)
            excess -= taken

    def _over(self) -> list[PlainGrant]:
        return [grant for grant in self.grants if grant.expires_ms <= self.now_ms]

    @property
    def is_expired(self) -> bool:
        return self.expires_ms <= self.now_ms

    def place(self, hold: PlainHold) -> None:
        if self.is_expired or self.credits - self.held < hold.amount:
            raise Refused
        self.holds.append(hold)

    def extend(self, hold_id: ObjectId, amount: int, expires_ms: int, reported: int | None) -> None:
        hold = self._hold(hold_id)
        more = max(0, amount - hold.amount)
        if more and (self.is_expired or self.credits - self.held < more):
            raise Refused
        hold.amount += more
        hold.expires_ms = expires_ms
        hold.reported = hold.reported if reported is None else reported

    def capture(self, hold_id: ObjectId, price: int | None) -> int:
        """Returns what nobody pays."""
        hold = self._hold(hold_id)
        if price is None:
            price = hold.amount if hold.reported is None else hold.reported
        unpaid = self._bill(hold, price)
        self._void()
        return unpaid

    def release(self, hold_id: ObjectId) -> None:
        self._free(self._hold(hold_id))
        self._void()

    def _hold(self, hold_id: ObjectId) -> PlainHold:
        return next(hold for hold in self.holds if hold.id == hold_id)

    def _bill(self, hold: PlainHold, price: int) -> int:
        paid = min(price, hold.amount + self.free)
        # Of the hold's own, what is over goes first.
        over = sorted(self._over(), key=_burns_first)
        first = min(paid, hold.amount, sum(grant.left for grant in over))
        for grant in over:
            taken = min(first, grant.left)
            first -= taken
            paid_now = taken
            self._take(grant, taken)
            paid -= paid_now
            price -= paid_now
            self.books["revenue:usage"] += paid_now
        self.books["revenue:usage"] += paid
        self._burn(paid)
        price -= paid
        self.holds.remove(hold)
        self._repay()
        if not self.carries_debt:
            return price
        self.debt += price
        self.books["revenue:usage"] += price
        return 0

    def _free(self, hold: PlainHold) -> None:
        self.holds.remove(hold)
        self._repay()

    def _repay(self) -> None:
        live = self.granted - sum(grant.left for grant in self._over())
        repaid = max(0, min(self.debt, live, self.granted - self.held))
        self._burn(repaid)
        self.debt -= repaid

    def grant(self, grant_id: ObjectId, amount: int, priority: int, expires_ms: int) -> int:
        """Returns what was left of it once the debt was repaid."""
        repaid = min(self.debt, amount)
        self.debt -= repaid
        self._make(grant_id, amount - repaid, priority, expires_ms)
        return amount - repaid

    def consume(self, amount: int) -> None:
        if self.is_expired or self.credits - self.held < amount:
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
        if self.free < amount and not self.carries_debt:
            raise Refused
        free = self.free
        own = [grant for grant in self.grants if grant.id == original.id]
        first = min(amount, free, sum(grant.left for grant in own))
        for grant in own:
            self._take(grant, first)
        burned = min(amount, free) - first
        self._burn(burned)
        self.debt += amount - first - burned
        self.books[original.counter_account] += amount

    def give_back(self, original: Entry, reversal_id: ObjectId) -> None:
        amount = -original.signed_micros
        self.books[original.counter_account] -= amount
        burned = {move.grant_id: -move.credits_micros for move in original.movements}
        owed = max(0, amount - sum(burned.values()))
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
            live = [grant for grant in self.grants if grant.expires_ms > self.now_ms]
            grant = min(live, key=_burns_first)
            taken = min(amount, grant.left)
            self._take(grant, taken)
            amount -= taken

    def _take(self, grant: PlainGrant, amount: int) -> None:
        grant.left -= amount
        if not grant.left:
            self.grants.remove(grant)


def _burns_first(grant: PlainGrant) -> tuple[int, int, int]:
    return (grant.priority, grant.expires_ms, grant.age)
