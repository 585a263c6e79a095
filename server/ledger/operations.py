"""What can be asked of a wallet. Each is applied by `apply.py` and never changed after.

A wallet is found by its user's id as hex: the hot path never makes an ObjectId for it.
"""

from typing import NamedTuple

from bson import ObjectId

from server.ledger.model import Cause, Charge, Entry, Grant, Usage


class OpenWallet(NamedTuple):
    """Makes the wallet, or leaves the one there is as it is."""

    user_id: str
    email: str


class ChangeSettings(NamedTuple):
    """Sets what is not None, if `settings_version` still holds (None: whatever it is)."""

    user_id: str
    overdraft_policy: int | None
    low_balance_threshold_micros: int | None
    settings_version: int | None


class AddGrant(NamedTuple):
    """Adds credits as a grant of their own; a debt is repaid from it first."""

    id: ObjectId
    user_id: str
    credits_micros: int
    source: int
    priority: int
    expires_ms: int
    cause: Cause


class Consume(NamedTuple):
    """Takes credits, or refuses when fewer are available."""

    id: ObjectId
    user_id: str
    credits_micros: int
    cause: Cause


class Use(NamedTuple):
    """Bills what was used already: never refused for want of credits."""

    id: ObjectId
    user_id: str
    client_id: str
    usage: Usage
    charge: Charge


class Reverse(NamedTuple):
    """Takes `original` back. `grants` are those it moved, as they were made."""

    id: ObjectId
    user_id: str
    original: Entry
    grants: tuple[Grant, ...]
    cause: Cause


Operation = OpenWallet | ChangeSettings | AddGrant | Consume | Use | Reverse
