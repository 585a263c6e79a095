"""What a wallet's user is to be told of: pure, from the wallet before and after.

Balances fall by what is spent and rise by what is granted, so that a crossing
is told once and is armed again only by credits that come in.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from bson import ObjectId

from server.ledger.model import DecreaseReason, Entry, Wallet


class AlertKind(IntEnum):
    """`zaaz.ledger.v1.WalletAlertKind`."""

    LOW_BALANCE = 1
    EXHAUSTED = 2
    CREDITS_EXPIRED = 3
    CREDITS_EXPIRING = 4
    PACKAGE_EXPIRED = 5
    PACKAGE_EXPIRING = 6


class Alert(NamedTuple):
    """One of them. `credits_micros` is the balance, or what expires of a grant.

    `sequence` is the wallet's; the grant and its days are set where there is one.
    """

    kind: int
    user_id: ObjectId
    user_wallet_id: ObjectId
    sequence: int
    time_ms: int
    credits_micros: int
    grant_id: ObjectId | None = None
    days: int = 0
    package_id: ObjectId | None = None


def crossings(before: Wallet, after: Wallet, now_ms: int) -> list[Alert]:
    """LOW_BALANCE and EXHAUSTED, where a batch took the balance across the line."""
    alerts: list[Alert] = []
    if _is_low(after) and not _is_low(before):
        alerts.append(_of_balance(AlertKind.LOW_BALANCE, after, now_ms))
    if after.credits_micros <= 0 < before.credits_micros:
        alerts.append(_of_balance(AlertKind.EXHAUSTED, after, now_ms))
    return alerts


def expiries(entries: Iterable[Entry]) -> list[Alert]:
    """CREDITS_EXPIRED for each entry that voids a grant, PACKAGE_EXPIRED for each that ends one."""
    return [alert for entry in entries if (alert := _expiry(entry)) is not None]


def _expiry(entry: Entry) -> Alert | None:
    if entry.decrease_reason == DecreaseReason.EXPIRY:
        return Alert(
            AlertKind.CREDITS_EXPIRED,
            entry.profile.user_id,
            entry.profile.id,
            entry.sequence,
            entry.cause.occurred_ms,
            -entry.signed_micros,
            entry.movements[0].grant_id,
        )
    if entry.decrease_reason == DecreaseReason.PACKAGE_END:
        return Alert(
            AlertKind.PACKAGE_EXPIRED,
            entry.profile.user_id,
            entry.profile.id,
            entry.sequence,
            entry.cause.occurred_ms,
            0,
            package_id=entry.profile.package_id,
        )
    return None


def _is_low(wallet: Wallet) -> bool:
    return wallet.credits_micros < wallet.profile.low_balance_threshold_micros


def _of_balance(kind: AlertKind, wallet: Wallet, now_ms: int) -> Alert:
    profile = wallet.profile
    return Alert(kind, profile.user_id, profile.id, wallet.sequence, now_ms, wallet.credits_micros)
