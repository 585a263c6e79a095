"""The rules of packages on wallets, pure like those of `apply`."""

from server.kernel.errors import DomainError, Reason
from server.ledger.draft import PackageNote
from server.ledger.expiry import expire
from server.ledger.model import PackageEvent, Period, Subscription, Wallet
from server.ledger.operations import EndPackage, SchedulePackage, StartPackage
from server.ledger.periods import MAX_END_MS, Start, begin, end
from server.ledger.posting import Applied


def start_package(wallet: Wallet, operation: StartPackage, now_ms: int) -> Applied:
    """AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS, FIELD_INVALID. Onboarding a second time: no entry."""
    wallet, expired, _, changes = expire(wallet, now_ms)
    profile = wallet.profile
    # One that is over is none: what is given once for ever has to be of use.
    keeps = operation.is_onboarding and profile.subscription is not None
    if operation.is_onboarding:
        if profile.initial_package_given or profile.initial_credits_given:
            return Applied(wallet, expired, None, changes)
        given = profile._replace(initial_package_given=True, initial_credits_given=True)
        wallet = wallet._replace(profile=given)
    start = Start(
        operation.id, operation.source, operation.cause, now_ms, keeps, operation.coupon_id
    )
    wallet, entry = begin(wallet, operation.terms, start, now_ms)
    return Applied(wallet, (*expired, entry), entry, changes)


def schedule_package(wallet: Wallet, operation: SchedulePackage, now_ms: int) -> Applied:
    """SUBSCRIPTION_NOT_FOUND. Makes no entry of its own."""
    wallet, expired, _, changes = expire(wallet, now_ms)
    scheduled = _running(wallet)._replace(next=operation.terms, is_canceled=False)
    return Applied(_with(wallet, scheduled, now_ms), expired, None, changes)


def end_package(wallet: Wallet, operation: EndPackage, now_ms: int) -> Applied:
    """SUBSCRIPTION_NOT_FOUND. Makes an entry only where it ends at once."""
    wallet, expired, _, changes = expire(wallet, now_ms)
    running = _running(wallet)
    if not operation.at_once:
        canceled = running._replace(next=None, is_canceled=True)
        return Applied(_with(wallet, canceled, now_ms), expired, None, changes)
    cause = operation.cause._replace(occurred_ms=now_ms)
    wallet, entry = end(wallet, operation.id, PackageEvent.ENDED, cause, now_ms)
    return Applied(wallet, (*expired, entry), entry, changes)


def note(operation: SchedulePackage | EndPackage, wallet: Wallet) -> PackageNote:
    """What became of a package without an entry, once it has been applied."""
    profile, subscription = wallet.profile, _running(wallet)
    if isinstance(operation, SchedulePackage):
        starts_ms = profile.expires_ms
        ends_ms = min(starts_ms + operation.terms.duration_ms, MAX_END_MS)
        period = Period(PackageEvent.SCHEDULED, operation.terms, starts_ms, ends_ms)
    else:
        times = (subscription.start_ms, profile.expires_ms)
        period = Period(PackageEvent.CANCELED, subscription.terms, *times)
    return PackageNote(
        operation.id, profile, period, operation.cause, wallet.updated_ms, wallet.sequence
    )


def _running(wallet: Wallet) -> Subscription:
    subscription = wallet.profile.subscription
    if subscription is None:
        user_id = wallet.profile.user_id
        raise DomainError(
            Reason.SUBSCRIPTION_NOT_FOUND,
            f"the user {user_id} has no package that runs",
            {"user_id": user_id},
        )
    return subscription


def _with(wallet: Wallet, subscription: Subscription, now_ms: int) -> Wallet:
    profile = wallet.profile._replace(subscription=subscription)
    return wallet._replace(profile=profile, updated_ms=now_ms)
