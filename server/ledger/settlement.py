"""How a hold ends: what is billed of it, what is free again, and what that repays.

Holds are not tied to grants: they set aside credits of the wallet, and of those
the ones whose time is over first. So a grant outlives its time by what is held.
"""

from collections.abc import Mapping
from typing import NamedTuple

from bson import ObjectId

from server.kernel.ids import derived_id
from server.ledger.grants import burn, merge, split_by_time
from server.ledger.model import (
    Cause,
    DecreaseReason,
    DisconnectPolicy,
    Grant,
    Hold,
    HoldState,
    IncreaseSource,
    Movement,
    OverdraftPolicy,
    Priced,
    Usage,
    Wallet,
)
from server.ledger.posting import HoldChange, Posting

HOLDS_ACCOUNT = "holds"
"""The counter-account of entries that move nothing but what is held."""


HOLD_KEY_PREFIX = "hold:"
"""What the usage_key of a capture begins with, where the caller gave none."""


class Ending(NamedTuple):
    """The entry that ends a hold, and the hold after it."""

    posting: Posting
    change: HoldChange


def capture_id(hold_id: ObjectId) -> ObjectId:
    """The id of the entry that captures a hold under no usage_key of the caller's."""
    # No client_id begins so: it never meets the id of a usage event.
    return derived_id("#hold", str(hold_id))


def capture_key(hold_id: ObjectId) -> str:
    """The usage_key of such an entry."""
    return f"{HOLD_KEY_PREFIX}{hold_id}"


def usage_of(
    hold: Hold,
    priced: Priced,
    occurred_ms: int,
    usage_key: str = "",
    labels: Mapping[str, str] | None = None,
) -> Usage:
    """What a hold's capture says was used, under the hold's own key and labels unless given."""
    return Usage(
        usage_key or capture_key(hold.id),
        hold.feature_endpoint,
        hold.ai_model,
        *priced.tokens,
        occurred_ms,
        labels or hold.labels,
    )


def release(wallet: Wallet, hold: Hold, entry_id: ObjectId, cause: Cause, at_ms: int) -> Ending:
    """Gives all that is held free again. `at_ms` is when that happens."""
    return _free(wallet, hold, entry_id, cause, at_ms, IncreaseSource.RELEASE, HoldState.RELEASED)


def expiry(wallet: Wallet, hold: Hold, client_id: str) -> Ending:
    """What a hold's policy does when its time is over."""
    at_ms = hold.expires_ms
    entry_id = capture_id(hold.id)
    cause = Cause(client_id, occurred_ms=at_ms)
    priced = hold.bound if hold.policy == DisconnectPolicy.CAPTURE_ALL else hold.reported
    if hold.policy == DisconnectPolicy.RELEASE or priced is None:
        source, state = IncreaseSource.HOLD_EXPIRY, HoldState.EXPIRED
        return _free(wallet, hold, entry_id, cause, at_ms, source, state)
    usage = usage_of(hold, priced, at_ms)
    ending = capture(wallet, hold, entry_id, cause, usage, priced, at_ms)
    return Ending(ending.posting, ending.change._replace(state=HoldState.EXPIRED))


def capture(
    wallet: Wallet,
    hold: Hold,
    entry_id: ObjectId,
    cause: Cause,
    usage: Usage,
    priced: Priced,
    at_ms: int,
) -> Ending:
    """Bills a use out of what is held, then of what is available, then by overdraft policy."""
    price = priced.charge.credits_micros
    burned = min(price, hold.held_micros + max(0, wallet.available_micros))
    kept, live = split_by_time(wallet.grants, at_ms)
    # Credits whose time is over are there for holds alone.
    overdue = min(burned, hold.held_micros, sum(grant.remaining_micros for grant in kept))
    kept, first = burn(kept, overdue)
    live, rest = burn(live, burned - overdue)
    shortfall, debt_change = price - burned, 0
    if wallet.profile.overdraft_policy == OverdraftPolicy.CARRY_DEBT:
        shortfall, debt_change = 0, shortfall
    still_held = wallet.held_micros - hold.held_micros
    live, repaid = _repay(kept, live, wallet.debt_micros, still_held)
    posting = Posting(
        id=entry_id,
        signed_micros=-burned - debt_change,
        movements=(*first, *_joined(rest, repaid)),
        grants=merge(kept, live),
        counter_account="revenue:usage",
        cause=cause,
        debt_change_micros=debt_change - _amount(repaid),
        decrease_reason=DecreaseReason.CAPTURE,
        holds=_without(wallet.holds, hold),
        hold_id=hold.id,
        held_change_micros=-hold.held_micros,
        usage=usage,
        charge=priced.charge,
        shortfall_micros=shortfall,
    )
    return Ending(posting, HoldChange(hold, HoldState.CAPTURED, price, at_ms, entry_id))


def _free(
    wallet: Wallet,
    hold: Hold,
    entry_id: ObjectId,
    cause: Cause,
    at_ms: int,
    source: int,
    state: int,
) -> Ending:
    kept, live = split_by_time(wallet.grants, at_ms)
    still_held = wallet.held_micros - hold.held_micros
    live, repaid = _repay(kept, live, wallet.debt_micros, still_held)
    posting = Posting(
        id=entry_id,
        signed_micros=0,
        movements=repaid,
        grants=merge(kept, live),
        counter_account=HOLDS_ACCOUNT,
        cause=cause,
        debt_change_micros=-_amount(repaid),
        source=source,
        holds=_without(wallet.holds, hold),
        hold_id=hold.id,
        held_change_micros=-hold.held_micros,
    )
    return Ending(posting, HoldChange(hold, state, 0, at_ms, entry_id))


def _repay(
    kept: tuple[Grant, ...], live: tuple[Grant, ...], debt: int, still_held: int
) -> tuple[tuple[Grant, ...], tuple[Movement, ...]]:
    """A wallet in debt has nothing free: what a hold gives back pays the debt first."""
    if not debt:
        return live, ()
    overdue = sum(grant.remaining_micros for grant in kept)
    needed = max(0, still_held - overdue)
    free = sum(grant.remaining_micros for grant in live) - needed
    return burn(live, min(debt, max(0, free)))


def _joined(burned: tuple[Movement, ...], repaid: tuple[Movement, ...]) -> tuple[Movement, ...]:
    """One movement a grant, in the order of the first."""
    moved: dict[ObjectId, int] = {}
    for grant_id, micros in (*burned, *repaid):
        moved[grant_id] = moved.get(grant_id, 0) + micros
    return tuple(Movement(grant_id, micros) for grant_id, micros in moved.items())


def _amount(movements: tuple[Movement, ...]) -> int:
    return -sum(movement.credits_micros for movement in movements)


def _without(holds: tuple[Hold, ...], ended: Hold) -> tuple[Hold, ...]:
    return tuple(hold for hold in holds if hold.id != ended.id)
