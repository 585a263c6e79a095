"""A package's period on a wallet: how long it is, how it begins and how it ends. Pure."""

from typing import Final, NamedTuple

from bson import ObjectId

from server.kernel.errors import field_invalid
from server.kernel.ids import derived_id
from server.kernel.money import MAX_MICROS
from server.kernel.principal import HOUSE_CLIENT
from server.ledger.model import (
    NEVER_MS,
    Cause,
    DecreaseReason,
    Entry,
    IncreaseSource,
    PackageEvent,
    Period,
    Profile,
    Subscription,
    Terms,
    Wallet,
    WalletType,
)
from server.ledger.posting import Credits, Posting, granting, post

MAX_END_MS: Final = 253_402_300_799_000
"""The end of the year 9999, the last that a timestamp can say."""


class Start(NamedTuple):
    """How a package begins: under which entry, from whom, why. `moment_ms` is when.

    `only_credits`: the wallet keeps the package that it has, whatever this one is.
    """

    entry_id: ObjectId
    source: int
    cause: Cause
    moment_ms: int
    only_credits: bool = False
    coupon_id: ObjectId | None = None


def begin(
    wallet: Wallet, terms: Terms, start: Start, now_ms: int, max_grants: int | None = None
) -> tuple[Wallet, Entry]:
    """The wallet with the package and its credits, which end with the period.

    FIELD_INVALID for an end that cannot be told, AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS.
    """
    period = _period(wallet.profile, terms, start)
    if period.end_ms > MAX_END_MS:
        raise field_invalid("plan_id", "would end after the year 9999")
    after = _topped_up if period.event == PackageEvent.TOPPED_UP else _having
    wallet = wallet._replace(profile=after(wallet.profile, period, start))
    credits_ = Credits(terms.credits_micros, start.source, 0, period.end_ms)
    posting = granting(wallet, credits_, start.entry_id, start.cause, now_ms)
    posting = posting._replace(period=period)
    return post(wallet, posting, now_ms, start.moment_ms, max_grants)


def end(
    wallet: Wallet, entry_id: ObjectId, event: PackageEvent, cause: Cause, now_ms: int
) -> tuple[Wallet, Entry]:
    """The wallet without the package that it has, from the cause's moment on. Nothing leaves it."""
    profile, moment_ms = wallet.profile, cause.occurred_ms
    subscription = profile.subscription
    assert subscription is not None
    profile = profile._replace(type=WalletType.FREE, expires_ms=moment_ms, subscription=None)
    posting = Posting(
        id=entry_id,
        signed_micros=0,
        movements=(),
        grants=wallet.grants,
        counter_account="package:end",
        cause=cause,
        decrease_reason=DecreaseReason.PACKAGE_END,
        period=Period(event, subscription.terms, subscription.start_ms, moment_ms),
    )
    return post(wallet._replace(profile=profile), posting, now_ms, moment_ms)


def run_out(wallet: Wallet, moment_ms: int, now_ms: int) -> tuple[Wallet, tuple[Entry, ...]]:
    """What happens when the period's time is over: it ends, and what is scheduled begins.

    Refuses nothing: every operation on the wallet goes through here.
    """
    subscription = wallet.profile.subscription
    if subscription is None or wallet.profile.expires_ms > moment_ms:
        return wallet, ()
    cause = Cause(HOUSE_CLIENT, occurred_ms=moment_ms)
    wallet, ended = end(
        wallet, _derived("#package_end", subscription, wallet), PackageEvent.EXPIRED, cause, now_ms
    )
    terms = subscription.next
    if terms is None:
        return wallet, (ended,)
    room = MAX_MICROS - max(0, wallet.credits_micros)
    terms = terms._replace(
        credits_micros=min(terms.credits_micros, room),
        duration_ms=min(terms.duration_ms, MAX_END_MS - moment_ms),
    )
    source = IncreaseSource.PAYMENT if terms.is_paid else IncreaseSource.BONUS
    entry_id = _derived("#package_start", subscription, wallet)
    start = Start(entry_id, source, cause, moment_ms)
    wallet, begun = begin(wallet, terms, start, now_ms, max_grants=len(wallet.grants) + 1)
    return wallet, (ended, begun)


def _period(profile: Profile, terms: Terms, start: Start) -> Period:
    now_ms = start.moment_ms
    event, from_ms = PackageEvent.STARTED, now_ms
    if start.only_credits or _is_top_up(profile.subscription, terms):
        event = PackageEvent.TOPPED_UP
    elif profile.package_id == terms.package_id:
        event = PackageEvent.RENEWED
        from_ms = now_ms if profile.expires_ms == NEVER_MS else max(now_ms, profile.expires_ms)
    return Period(event, terms, from_ms, from_ms + terms.duration_ms, start.coupon_id)


def _is_top_up(current: Subscription | None, terms: Terms) -> bool:
    """Whether it is credits, bought beside a subscription."""
    return current is not None and current.terms.is_subscription and not terms.is_subscription


def _topped_up(profile: Profile, period: Period, start: Start) -> Profile:
    """A package that is free goes on for as long as credits that were paid for."""
    current = profile.subscription
    is_free = current is not None and not current.terms.is_paid
    if start.only_credits or not is_free or not period.terms.is_paid:
        return profile
    return profile._replace(type=WalletType.PAID, expires_ms=max(profile.expires_ms, period.end_ms))


def _having(profile: Profile, period: Period, start: Start) -> Profile:
    terms, current, start_ms = period.terms, profile.subscription, period.start_ms
    if period.event == PackageEvent.RENEWED and current is not None:
        start_ms = current.start_ms
    return profile._replace(
        type=WalletType.PAID if terms.is_paid else WalletType.FREE,
        expires_ms=period.end_ms,
        package_id=terms.package_id,
        plan_id=terms.plan_id,
        package_history_id=terms.package_history_id,
        subscription=Subscription(start.entry_id, terms, start_ms),
    )


def _derived(why: str, subscription: Subscription, wallet: Wallet) -> ObjectId:
    # No client_id begins so, and a usage's id begins with one: the two never meet.
    return derived_id(why, str(subscription.id), str(wallet.sequence + 1))
