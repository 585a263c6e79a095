"""What callers do with holds: place, extend, capture, release. Pure, like `apply`."""

from bson import ObjectId

from server.kernel.clock import iso
from server.kernel.errors import DomainError, Reason
from server.ledger import settlement
from server.ledger.expiry import expire, void
from server.ledger.model import (
    MAX_HOLDS,
    Cause,
    DecreaseReason,
    Hold,
    HoldState,
    Profile,
    Wallet,
)
from server.ledger.operations import CaptureHold, ExtendHold, PlaceHold, ReleaseHold, Use
from server.ledger.posting import Applied, HoldChange, Posting, post
from server.ledger.refusals import hold_ended, insufficient, too_many_holds


class FundsRefusedError(DomainError):
    """The wallet cannot set so much aside. `all` has every reason, the first is its own."""

    def __init__(self, reasons: tuple[DomainError, ...]) -> None:
        first = reasons[0]
        super().__init__(first.reason, first.message, first.metadata)
        self.all = reasons


class PackageChangedError(DomainError):
    """The wallet has another package, or tier, than its user was let in for: look again."""

    def __init__(self) -> None:
        super().__init__(
            Reason.CONTENTION,
            "the user's package changed meanwhile",
            {"attempts": 1},
            retry_delay_seconds=0.1,
        )


def wallet_expired(wallet: Wallet) -> DomainError:
    """WALLET_EXPIRED."""
    return DomainError(
        Reason.WALLET_EXPIRED,
        "the wallet's subscription has expired",
        {"expires_time": iso(wallet.profile.expires_ms)},
    )


def funds_refusals(
    wallet: Wallet, amount_micros: int, now_ms: int, *, bypass_expiry: bool = False
) -> tuple[DomainError, ...]:
    """Every reason of a wallet (as of now) against spending so much: none, one or two."""
    refusals: list[DomainError] = []
    if wallet.profile.expires_ms <= now_ms and not bypass_expiry:
        refusals.append(wallet_expired(wallet))
    if wallet.available_micros < amount_micros:
        refusals.append(insufficient(wallet.available_micros, amount_micros))
    return tuple(refusals)


def hold_refusals(
    wallet: Wallet, amount_micros: int, now_ms: int, *, bypass_expiry: bool = False
) -> tuple[DomainError, ...]:
    """The same, and whether the wallet has room for one hold more."""
    refusals = funds_refusals(wallet, amount_micros, now_ms, bypass_expiry=bypass_expiry)
    if len(wallet.holds) >= MAX_HOLDS:
        refusals = (*refusals, too_many_holds(MAX_HOLDS))
    return refusals


def place_hold(wallet: Wallet, operation: PlaceHold, now_ms: int) -> Applied:
    """INSUFFICIENT_CREDITS, WALLET_EXPIRED, TOO_MANY_HOLDS: all of them as FundsRefusedError.

    PackageChangedError.
    """
    wallet, expired, _, changes = expire(wallet, now_ms)
    asked_of = operation.asked_of
    if asked_of is not None and _standing(asked_of) != _standing(wallet.profile):
        raise PackageChangedError
    hold = operation.hold._replace(created_ms=now_ms, expires_ms=now_ms + operation.ttl_ms)
    bypass = operation.bypass_expiry
    refusals = hold_refusals(wallet, hold.held_micros, now_ms, bypass_expiry=bypass)
    if refusals:
        raise FundsRefusedError(refusals)
    holds = (*wallet.holds, hold)
    wallet, entry = post(wallet, _held(wallet, hold, hold.id, operation.cause, holds), now_ms)
    placed = HoldChange(hold, HoldState.ACTIVE)
    return Applied(wallet, (*expired, entry), entry, (*changes, placed))


def extend_hold(wallet: Wallet, operation: ExtendHold, now_ms: int) -> Applied:
    """HOLD_NOT_FOUND, HOLD_ENDED, INSUFFICIENT_CREDITS, WALLET_EXPIRED."""
    wallet, expired, _, changes = expire(wallet, now_ms)
    before = active_hold(wallet, operation.hold_id)
    bound = before.bound
    if operation.raised is not None:
        bound = operation.raised(bound.tokens)
    after = before._replace(
        bound=bound,
        reported=operation.reported or before.reported,
        expires_ms=before.expires_ms if operation.ttl_ms is None else now_ms + operation.ttl_ms,
    )
    if after.held_micros < before.held_micros:
        # Prices are pinned, so only a bound that sank makes this; bounds do not sink.
        after = after._replace(bound=before.bound)
    more = after.held_micros - before.held_micros
    if more:
        _check_funds(wallet, more, now_ms)
    holds = tuple(after if hold.id == before.id else hold for hold in wallet.holds)
    posting = _held(wallet, after, operation.id, operation.cause, holds, more)
    wallet, entry = post(wallet, posting, now_ms)
    extended = HoldChange(after, HoldState.ACTIVE)
    return Applied(wallet, (*expired, entry), entry, (*changes, extended))


def capture_hold(wallet: Wallet, operation: CaptureHold, now_ms: int) -> Applied:
    """HOLD_NOT_FOUND, HOLD_ENDED, AMOUNT_OUT_OF_RANGE. Never refused for want of credits."""
    due = expire(wallet, now_ms)
    hold = active_hold(due.wallet, operation.hold_id)
    priced = operation.priced or hold.reported or hold.bound
    usage = operation.usage or settlement.usage_of(
        hold, priced, now_ms, operation.usage_key, operation.cause.labels
    )
    ending = settlement.capture(
        due.wallet, hold, operation.id, operation.cause, usage, priced, now_ms
    )
    return _ended(ending, due, now_ms)


def capture_by_use(wallet: Wallet, operation: Use, now_ms: int) -> Applied | None:
    """The same for a usage event that names its hold.

    None where the hold has run out by now and nothing was billed of it: the use
    has happened, so it is billed like any other.
    """
    hold_id = operation.hold_id
    assert hold_id is not None
    for change in expire(wallet, now_ms).holds:
        if change.hold.id == hold_id and not change.is_billed:
            return None
    capture = CaptureHold(
        operation.id,
        operation.user_id,
        hold_id,
        operation.priced,
        Cause(operation.client_id),
        operation.usage,
    )
    return capture_hold(wallet, capture, now_ms)


def release_hold(wallet: Wallet, operation: ReleaseHold, now_ms: int) -> Applied:
    """HOLD_NOT_FOUND, HOLD_ENDED."""
    due = expire(wallet, now_ms)
    hold = active_hold(due.wallet, operation.hold_id)
    ending = settlement.release(due.wallet, hold, operation.id, operation.cause, now_ms)
    return _ended(ending, due, now_ms)


def active_hold(wallet: Wallet, hold_id: ObjectId) -> Hold:
    """The wallet's hold. HOLD_ENDED: it has none of this id any more."""
    for hold in wallet.holds:
        if hold.id == hold_id:
            return hold
    raise hold_ended(hold_id)


def _standing(profile: Profile) -> tuple[int, ObjectId | None]:
    """What the catalog's answer rests on."""
    return profile.type, profile.package_history_id


def _check_funds(wallet: Wallet, amount_micros: int, now_ms: int) -> None:
    refusals = funds_refusals(wallet, amount_micros, now_ms)
    if refusals:
        raise FundsRefusedError(refusals)


def _held(
    wallet: Wallet,
    hold: Hold,
    entry_id: ObjectId,
    cause: Cause,
    holds: tuple[Hold, ...],
    more_micros: int | None = None,
) -> Posting:
    return Posting(
        id=entry_id,
        signed_micros=0,
        movements=(),
        grants=wallet.grants,
        counter_account=settlement.HOLDS_ACCOUNT,
        cause=cause,
        decrease_reason=DecreaseReason.HOLD,
        holds=holds,
        hold_id=hold.id,
        held_change_micros=hold.held_micros if more_micros is None else more_micros,
    )


def _ended(
    ending: settlement.Ending,
    due: Applied,
    now_ms: int,
) -> Applied:
    """Posts the end of a hold; what outlived its time for it alone is void with it."""
    wallet, entry = post(due.wallet, ending.posting, now_ms)
    wallet, voided = void(wallet, now_ms, now_ms)
    return Applied(wallet, (*due.entries, entry, *voided), entry, (*due.holds, ending.change))
