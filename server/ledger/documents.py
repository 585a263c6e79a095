"""Values to MongoDB documents and back.

Documents leave out what is absent, so a usage entry is about 700 bytes. One
document carries both an entry's CreditsTransaction and its CreditsUsage.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId
from bson.datetime_ms import DatetimeMS

from server.kernel.errors import DomainError, FieldViolation, Reason
from server.ledger.dates import date, milliseconds
from server.ledger.grants import next_due
from server.ledger.hold_documents import hold_document, hold_from
from server.ledger.model import (
    NEVER_MS,
    Cause,
    Charge,
    Entry,
    Grant,
    Movement,
    Profile,
    Usage,
    Wallet,
    Writer,
)
from server.ledger.package_documents import (
    period_document,
    period_from,
    subscription_document,
    subscription_from,
)

Document = dict[str, Any]


def _expiry_date(time_ms: int) -> DatetimeMS | None:
    return None if time_ms == NEVER_MS else DatetimeMS(time_ms)


def _expiry_ms(moment: datetime | None) -> int:
    return NEVER_MS if moment is None else milliseconds(moment)


_CHANGEABLE = (
    "type",
    "overdraft_policy",
    "low_balance_threshold_micros",
    "settings_version",
    "package_id",
    "plan_id",
    "initial_credits_given",
    "initial_package_given",
    "package_history_id",
)
"""Fields of a profile that operations change."""


def wallet_document(wallet: Wallet) -> Document:
    """The whole row."""
    profile = wallet.profile
    return {
        "_id": profile.id,
        "user_id": profile.user_id,
        "email": profile.email,
        "package_id": profile.package_id,
        "plan_id": profile.plan_id,
        "credits_micros": wallet.credits_micros,
        "held_micros": wallet.held_micros,
        "debt_micros": wallet.debt_micros,
        "expires_time": _expiry_date(profile.expires_ms),
        "initial_credits_given": profile.initial_credits_given,
        "initial_package_given": profile.initial_package_given,
        "type": profile.type,
        "is_deleted": profile.is_deleted,
        "grants": [grant_document(grant) for grant in wallet.grants],
        "sequence": wallet.sequence,
        "chain": wallet.chain,
        "version": wallet.version,
        "overdraft_policy": profile.overdraft_policy,
        "low_balance_threshold_micros": profile.low_balance_threshold_micros,
        "settings_version": profile.settings_version,
        "created_time": date(profile.created_ms),
        "updated_time": date(wallet.updated_ms),
        "holds": [hold_document(hold) for hold in wallet.holds],
        "package_history_id": profile.package_history_id,
        "subscription": subscription_document(profile),
    }


def wallet_from(row: Mapping[str, Any]) -> Wallet:
    """The wallet of a row."""
    grants = tuple(grant_from(grant) for grant in row["grants"])
    holds = tuple(hold_from(hold) for hold in row.get("holds", ()))
    profile = _profile_from(row)
    return Wallet(
        profile,
        row["version"],
        row["credits_micros"],
        row["held_micros"],
        row["debt_micros"],
        row["sequence"],
        bytes(row["chain"]),
        grants,
        next_due(grants, holds, profile, 0),
        milliseconds(row["updated_time"]),
        holds,
    )


def _profile_from(row: Mapping[str, Any]) -> Profile:
    return Profile(
        id=row["_id"],
        user_id=row["user_id"],
        email=row["email"],
        created_ms=milliseconds(row["created_time"]),
        type=row["type"],
        overdraft_policy=row["overdraft_policy"],
        low_balance_threshold_micros=row["low_balance_threshold_micros"],
        settings_version=row["settings_version"],
        expires_ms=_expiry_ms(row["expires_time"]),
        package_id=row["package_id"],
        plan_id=row["plan_id"],
        initial_credits_given=row["initial_credits_given"],
        initial_package_given=row["initial_package_given"],
        is_deleted=row["is_deleted"],
        package_history_id=row.get("package_history_id"),
        subscription=subscription_from(row.get("subscription")),
    )


class WalletUpdate(NamedTuple):
    """A change of a wallet's row (`id`) which holds only for the version that it starts from."""

    id: ObjectId
    user_id: ObjectId
    version: int
    change: Document


def wallet_update(before: Wallet, after: Wallet) -> WalletUpdate:
    """The update from one state of the row to the next.

    Balances move by $inc. The version pins the whole row, so that a grant may be
    addressed by its place.
    """
    increments: Document = {"version": 1}
    changes: Document = {"chain": after.chain, "updated_time": date(after.updated_ms)}
    _increment(increments, "sequence", after.sequence - before.sequence)
    _increment(increments, "credits_micros", after.credits_micros - before.credits_micros)
    _increment(increments, "held_micros", after.held_micros - before.held_micros)
    _increment(increments, "debt_micros", after.debt_micros - before.debt_micros)
    if [grant.id for grant in before.grants] == [grant.id for grant in after.grants]:
        for place, (old, new) in enumerate(zip(before.grants, after.grants, strict=True)):
            moved = new.remaining_micros - old.remaining_micros
            _increment(increments, f"grants.{place}.remaining_micros", moved)
    else:
        changes["grants"] = [grant_document(grant) for grant in after.grants]
    if after.holds is not before.holds:
        changes["holds"] = [hold_document(hold) for hold in after.holds]
    if after.profile is not before.profile:
        changes |= _profile_changes(before.profile, after.profile)
    change = {"$inc": increments, "$set": changes}
    return WalletUpdate(before.profile.id, before.profile.user_id, before.version, change)


def _profile_changes(before: Profile, after: Profile) -> Document:
    """What of a profile can change, where it has."""
    changes: Document = {
        field: getattr(after, field)
        for field in _CHANGEABLE
        if getattr(after, field) != getattr(before, field)
    }
    changes["expires_time"] = _expiry_date(after.expires_ms)
    changes["subscription"] = subscription_document(after)
    return changes


def _increment(increments: Document, field: str, by: int) -> None:
    if by:
        increments[field] = by


def grant_document(grant: Grant) -> Document:
    """A grant, as embedded in its wallet and in the entry that made it."""
    return {
        "id": grant.id,
        "source": grant.source,
        "original_micros": grant.original_micros,
        "remaining_micros": grant.remaining_micros,
        "priority": grant.priority,
        "expires_time": _expiry_date(grant.expires_ms),
        "created_time": date(grant.created_ms),
        "sequence": grant.sequence,
    }


def grant_from(row: Mapping[str, Any]) -> Grant:
    """The grant of an embedded document."""
    return Grant(
        row["id"],
        row["source"],
        row["original_micros"],
        row["remaining_micros"],
        row["priority"],
        _expiry_ms(row["expires_time"]),
        milliseconds(row["created_time"]),
        row["sequence"],
    )


_SELDOM = (
    "held_after_micros",
    "debt_after_micros",
    "shortfall_micros",
    "hold_id",
    "held_change_micros",
)
"""Fields of an entry that most have not."""


def entry_document(entry: Entry) -> Document:
    """The row of an entry."""
    profile = entry.profile
    document = {
        "_id": entry.id,
        "user_id": profile.user_id,
        "user_wallet_id": profile.id,
        "sequence": entry.sequence,
        "signed_micros": entry.signed_micros,
        "balance_after_micros": entry.balance_after_micros,
        "grant_movements": [
            {"grant_id": grant_id, "credits_micros": micros} for grant_id, micros in entry.movements
        ],
        "counter_account": entry.counter_account,
        "client_id": entry.cause.client_id,
        "created_time": DatetimeMS(entry.created_ms),
        "chain": entry.chain,
    }
    if profile.email:
        document["email"] = profile.email
    if profile.plan_id is not None:
        document["plan_id"] = profile.plan_id
    if entry.source:
        document["increase_source"] = entry.source
    else:
        document["decrease_reason"] = entry.decrease_reason
    for field in _SELDOM:
        value = getattr(entry, field)
        if value:
            document[field] = value
    if entry.usage is not None and entry.charge is not None:
        document["usage"] = _usage_document(entry.usage, entry.charge)
    if entry.usage is None or entry.cause.occurred_ms:
        document["cause"] = _cause_document(entry.cause)
    if entry.grant is not None:
        document["grant"] = grant_document(entry.grant)
    if entry.period is not None:
        document["period"] = period_document(entry.period)
    return document


def _usage_document(usage: Usage, charge: Charge) -> Document:
    document = {
        "usage_key": usage.usage_key,
        "ai_model": usage.ai_model,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "occurred_time": DatetimeMS(usage.occurred_ms),
        "credits_micros": charge.credits_micros,
        "input_credits_micros": charge.input_credits_micros,
        "output_credits_micros": charge.output_credits_micros,
        "cost_credits_micros": charge.cost_credits_micros,
        "profit_credits_micros": charge.profit_credits_micros,
        "cost_price_micros": charge.cost_price_micros,
        "credit_price_micros": charge.credit_price_micros,
        "profit_ppm": charge.profit_ppm,
    }
    if charge.endpoint_credits_micros:
        document["endpoint_credits_micros"] = charge.endpoint_credits_micros
    if usage.feature_endpoint:
        document["feature_endpoint"] = usage.feature_endpoint
    if usage.cache_read_tokens:
        document["cache_read_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        document["cache_write_tokens"] = usage.cache_write_tokens
    if usage.labels:
        document["labels"] = usage.labels
    return document


def _charge_from(usage: Mapping[str, Any]) -> Charge:
    # A charge without an endpoint's credits has no field for them.
    return Charge(*(usage.get(field, 0) for field in Charge._fields))


def _cause_document(cause: Cause) -> Document:
    document: Document = {"request_id": cause.request_id, "reason": cause.reason}
    document["occurred_time"] = date(cause.occurred_ms)
    for field in ("labels", "decrease_source", "payment_transaction_id", "reverses_id"):
        value = getattr(cause, field)
        if value:
            document[field] = value
    return document


def entry_from(row: Mapping[str, Any]) -> Entry:
    """The entry of a row, with as much of the wallet's profile as the row has."""
    usage = row.get("usage")
    grant = row.get("grant")
    return Entry(
        id=row["_id"],
        profile=Profile(
            id=row["user_wallet_id"],
            user_id=row["user_id"],
            email=row.get("email", ""),
            created_ms=0,
            plan_id=row.get("plan_id"),
        ),
        sequence=row["sequence"],
        signed_micros=row["signed_micros"],
        source=row.get("increase_source", 0),
        decrease_reason=row.get("decrease_reason", 0),
        movements=tuple(
            Movement(m["grant_id"], m["credits_micros"]) for m in row["grant_movements"]
        ),
        balance_after_micros=row["balance_after_micros"],
        held_after_micros=row.get("held_after_micros", 0),
        debt_after_micros=row.get("debt_after_micros", 0),
        counter_account=row["counter_account"],
        cause=_cause_from(row),
        created_ms=milliseconds(row["created_time"]),
        chain=bytes(row["chain"]),
        shortfall_micros=row.get("shortfall_micros", 0),
        usage=None if usage is None else _usage_from(usage),
        charge=None if usage is None else _charge_from(usage),
        grant=None if grant is None else grant_from(grant),
        hold_id=row.get("hold_id"),
        held_change_micros=row.get("held_change_micros", 0),
        period=period_from(row.get("period")),
    )


def _usage_from(row: Mapping[str, Any]) -> Usage:
    return Usage(
        row["usage_key"],
        row.get("feature_endpoint", ""),
        row["ai_model"],
        row["input_tokens"],
        row["output_tokens"],
        row.get("cache_read_tokens", 0),
        row.get("cache_write_tokens", 0),
        milliseconds(row["occurred_time"]),
        row.get("labels"),
    )


def _cause_from(row: Mapping[str, Any]) -> Cause:
    cause = row.get("cause")
    if cause is None:
        return Cause(row["client_id"])
    return Cause(
        row["client_id"],
        cause["request_id"],
        cause["reason"],
        cause.get("labels"),
        milliseconds(cause["occurred_time"]),
        cause.get("decrease_source"),
        cause.get("payment_transaction_id"),
        cause.get("reverses_id"),
    )


def writer_from(row: Mapping[str, Any]) -> Writer:
    """The writer of a row."""
    return Writer(row["_id"], row["epoch"], row["next_offset"])


def error_document(error: DomainError) -> Document:
    """A refusal, to be shown again later."""
    return {
        "reason": error.reason.value,
        "message": error.message,
        "metadata": error.metadata,
        "violations": [{"field": v.field, "description": v.description} for v in error.violations],
    }


def error_from(row: Mapping[str, Any]) -> DomainError:
    """The refusal of a row."""
    return DomainError(
        Reason(row["reason"]),
        row["message"],
        row["metadata"],
        violations=[FieldViolation(v["field"], v["description"]) for v in row["violations"]],
    )
