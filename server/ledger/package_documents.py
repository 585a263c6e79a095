"""Packages on wallets and entries to MongoDB documents and back, and their rows of their own."""

from collections.abc import Mapping
from typing import Any

from bson.datetime_ms import DatetimeMS

from server.ledger.dates import date, milliseconds
from server.ledger.draft import PackageNote
from server.ledger.model import Period, Profile, Subscription, Terms

Document = dict[str, Any]


def terms_document(terms: Terms) -> Document:
    """What was sold."""
    return terms._asdict()


def terms_from(row: Mapping[str, Any]) -> Terms:
    """What was sold, of an embedded document."""
    return Terms(*(row[field] for field in Terms._fields))


def subscription_document(profile: Profile) -> Document | None:
    """The period that runs, as embedded in its wallet; its end stands there to be found."""
    subscription = profile.subscription
    if subscription is None:
        return None
    following = subscription.next
    return {
        "id": subscription.id,
        "terms": terms_document(subscription.terms),
        "start_time": date(subscription.start_ms),
        "expires_time": DatetimeMS(profile.expires_ms),
        "is_canceled": subscription.is_canceled,
        "next": None if following is None else terms_document(following),
    }


def subscription_from(row: Mapping[str, Any] | None) -> Subscription | None:
    """The period of an embedded document."""
    if row is None:
        return None
    following = row["next"]
    return Subscription(
        row["id"],
        terms_from(row["terms"]),
        milliseconds(row["start_time"]),
        row["is_canceled"],
        None if following is None else terms_from(following),
    )


def period_document(period: Period) -> Document:
    """What an entry says of a package."""
    document = {
        "event": period.event,
        "terms": terms_document(period.terms),
        "start_time": DatetimeMS(period.start_ms),
        "end_time": DatetimeMS(period.end_ms),
    }
    if period.coupon_id is not None:
        document["coupon_id"] = period.coupon_id
    return document


def period_from(row: Mapping[str, Any] | None) -> Period | None:
    """The same of an embedded document."""
    if row is None:
        return None
    return Period(
        row["event"],
        terms_from(row["terms"]),
        milliseconds(row["start_time"]),
        milliseconds(row["end_time"]),
        row.get("coupon_id"),
    )


def package_document(note: PackageNote) -> Document:
    """A row of `zaaz.subscriptions.v1.PackageTransaction`; what is not set is absent."""
    period, terms, cause = note.period, note.period.terms, note.cause
    document: Document = {
        "_id": note.id,
        "user_id": note.profile.user_id,
        "user_wallet_id": note.profile.id,
        "kind": period.event,
        "package_id": terms.package_id,
        "plan_id": terms.plan_id,
        "package_plan_id": terms.package_plan_id,
        "package_history_id": terms.package_history_id,
        "credits_transaction_id": note.entry_id,
        "payment_transaction_id": cause.payment_transaction_id,
        "coupon_id": period.coupon_id,
        "credits_micros": note.credits_micros,
        "start_time": DatetimeMS(period.start_ms),
        "end_time": DatetimeMS(period.end_ms),
        "client_id": cause.client_id,
        "reason": cause.reason,
        "created_time": DatetimeMS(note.created_ms),
        "sequence": note.sequence,
    }
    return {name: value for name, value in document.items() if value is not None}
