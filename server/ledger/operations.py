"""What can be asked of a wallet. Each is applied by `apply.py` and never changed after.

A wallet is found by its user's id as hex: the hot path never makes an ObjectId for it.
"""

from collections.abc import Callable
from typing import NamedTuple

from bson import ObjectId

from server.ledger.model import (
    Cause,
    Charge,
    Entry,
    Grant,
    Hold,
    Priced,
    Profile,
    Terms,
    Tokens,
    Usage,
)


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
    """Takes credits, or refuses when fewer are available.

    `bypass_expiry`: also of a wallet whose subscription has expired.
    """

    id: ObjectId
    user_id: str
    credits_micros: int
    cause: Cause
    bypass_expiry: bool = False


class Use(NamedTuple):
    """Bills what was used already: never refused for want of credits.

    With `hold_id` it captures that hold, at `held_charge`: by the prices that the
    hold was placed at. Where the hold ended without a bill, `charge` counts.
    """

    id: ObjectId
    user_id: str
    client_id: str
    usage: Usage
    charge: Charge
    hold_id: ObjectId | None = None
    held_charge: Charge | None = None

    @property
    def priced(self) -> Priced:
        """What was used and what it comes to by its hold's prices."""
        usage = self.usage
        tokens = Tokens(
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
        )
        return Priced(tokens, self.held_charge or self.charge)


class Reverse(NamedTuple):
    """Takes `original` back. `grants` are those it moved, as they were made."""

    id: ObjectId
    user_id: str
    original: Entry
    grants: tuple[Grant, ...]
    cause: Cause


class Tidy(NamedTuple):
    """Writes what has become due by time alone."""

    user_id: str


class PlaceHold(NamedTuple):
    """Sets credits aside for `ttl_ms`. The wallet gives `hold` its times.

    `bypass_expiry`: also of a wallet whose subscription has expired. `asked_of`: the wallet
    as others have let its user in by it; None: nobody was asked.
    """

    user_id: str
    hold: Hold
    ttl_ms: int
    cause: Cause
    bypass_expiry: bool = False
    asked_of: Profile | None = None


class ExtendHold(NamedTuple):
    """Gives a hold more time, a higher bound, word of what was used. None: as it was.

    `raised` makes the new bound of the tokens of the one before, which only `apply` knows:
    others may raise it at the same time.
    """

    id: ObjectId
    user_id: str
    hold_id: ObjectId
    ttl_ms: int | None
    raised: Callable[[Tokens], Priced] | None
    reported: Priced | None
    cause: Cause


class CaptureHold(NamedTuple):
    """Bills what was really used and ends the hold.

    `priced` None: what was reported last, or else all that is held. `usage` None:
    as the hold and `priced` have it, under `usage_key` ("": the hold's own).
    """

    id: ObjectId
    user_id: str
    hold_id: ObjectId
    priced: Priced | None
    cause: Cause
    usage: Usage | None = None
    usage_key: str = ""


class ReleaseHold(NamedTuple):
    """Ends a hold. Nothing is billed."""

    id: ObjectId
    user_id: str
    hold_id: ObjectId
    cause: Cause


class StartPackage(NamedTuple):
    """Gives a package: renews the one there is, starts another, or tops it up.

    `is_onboarding`: only once a wallet, and only the credits where a package runs.
    """

    id: ObjectId
    user_id: str
    terms: Terms
    source: int
    cause: Cause
    is_onboarding: bool = False
    coupon_id: ObjectId | None = None


class SchedulePackage(NamedTuple):
    """Has another package start when the present period ends."""

    id: ObjectId
    user_id: str
    terms: Terms
    cause: Cause


class EndPackage(NamedTuple):
    """Ends the present package when its period does, or now."""

    id: ObjectId
    user_id: str
    at_once: bool
    cause: Cause


Operation = (
    OpenWallet
    | ChangeSettings
    | AddGrant
    | Consume
    | Use
    | Reverse
    | Tidy
    | PlaceHold
    | ExtendHold
    | CaptureHold
    | ReleaseHold
    | StartPackage
    | SchedulePackage
    | EndPackage
)
