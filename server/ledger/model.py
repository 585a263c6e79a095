"""What the ledger keeps: wallets, their grants, and the entries that changed them.

All values are immutable. Ids are ObjectIds, amounts int64 micro-credits, times
milliseconds since the epoch. The hot types are NamedTuples because they are made
tens of thousands of times a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple

from bson import ObjectId

MAX_GRANTS = 1_000
"""Grants that one wallet may hold at a time; its document is rewritten with them."""

MAX_HOLDS = 200
"""Holds that one wallet may have at a time; its document is rewritten with them."""

NEVER_MS = 2**63 - 1
"""Stands for "no expiry" where times are compared."""


class WalletType(IntEnum):
    """`zaaz.ledger.v1.WalletType`."""

    FREE = 1
    PAID = 2


class OverdraftPolicy(IntEnum):
    """`zaaz.ledger.v1.OverdraftPolicy`: what becomes of usage beyond the balance."""

    FLOOR_AT_ZERO = 1
    CARRY_DEBT = 2


class IncreaseSource(IntEnum):
    """`zaaz.ledger.v1.IncreaseSource`: where credits came from."""

    PAYMENT = 1
    BONUS = 2
    COUPON = 3
    REFUND = 4
    ADJUSTMENT = 5
    REVERSAL = 6
    RELEASE = 7
    HOLD_EXPIRY = 8


class DecreaseReason(IntEnum):
    """`zaaz.ledger.v1.DecreaseReason`: why credits left."""

    CONSUMPTION = 1
    USAGE = 2
    EXPIRY = 3
    REVERSAL = 4
    HOLD = 5
    CAPTURE = 6
    PACKAGE_END = 7


class PackageEvent(IntEnum):
    """`zaaz.subscriptions.v1.PackageTransactionKind`: what became of a user's package."""

    STARTED = 1
    RENEWED = 2
    TOPPED_UP = 3
    EXPIRED = 4
    SCHEDULED = 5
    CANCELED = 6
    ENDED = 7


class HoldState(IntEnum):
    """`zaaz.ledger.v1.HoldState`: what became of a hold."""

    ACTIVE = 1
    CAPTURED = 2
    RELEASED = 3
    EXPIRED = 4


class DisconnectPolicy(IntEnum):
    """`zaaz.ledger.v1.DisconnectPolicy`: what happens to a hold whose time runs out."""

    RELEASE = 1
    CAPTURE_REPORTED = 2
    CAPTURE_ALL = 3


class Grant(NamedTuple):
    """Credits of one origin with one expiry. `id` is that of the entry that made it."""

    id: ObjectId
    source: int
    original_micros: int
    remaining_micros: int
    priority: int
    expires_ms: int
    created_ms: int
    sequence: int

    @property
    def burn_order(self) -> tuple[int, int, int]:
        """Priority, then earliest expiry, then oldest."""
        return (self.priority, self.expires_ms, self.sequence)

    def with_remaining(self, remaining_micros: int) -> "Grant":
        """The same grant with another rest."""
        return Grant(*self[:3], remaining_micros, *self[4:])


class Terms(NamedTuple):
    """A package with a plan as they were sold, under a snapshot (PackageHistory).

    `is_paid`: it costs something. `is_subscription`: its type, rather than CREDITS.
    """

    package_id: ObjectId
    plan_id: ObjectId
    package_plan_id: ObjectId
    package_history_id: ObjectId
    credits_micros: int
    duration_ms: int
    is_paid: bool
    is_subscription: bool


class Subscription(NamedTuple):
    """A package's period, which runs until the profile's expires_ms.

    `id` is that of the entry that began it. `next` starts when it ends.
    """

    id: ObjectId
    terms: Terms
    start_ms: int
    is_canceled: bool = False
    next: Terms | None = None


class Period(NamedTuple):
    """What an entry says of a package: a PackageEvent, and the time that it is about."""

    event: int
    terms: Terms
    start_ms: int
    end_ms: int
    coupon_id: ObjectId | None = None


class Profile(NamedTuple):
    """What entries do not change about a wallet, unless they begin or end a package's period.

    `subscription` is None once its end has its entry, and for who never had one; the ids
    stay what they were.
    """

    id: ObjectId
    user_id: ObjectId
    email: str
    created_ms: int
    type: int = WalletType.FREE
    overdraft_policy: int = OverdraftPolicy.FLOOR_AT_ZERO
    low_balance_threshold_micros: int = 0
    settings_version: int = 1
    expires_ms: int = NEVER_MS
    package_id: ObjectId | None = None
    plan_id: ObjectId | None = None
    initial_credits_given: bool = False
    initial_package_given: bool = False
    is_deleted: bool = False
    package_history_id: ObjectId | None = None
    subscription: Subscription | None = None

    @property
    def period_ends_ms(self) -> int:
        """When the package's period ends that has no entry for it yet; NEVER_MS if none runs."""
        return NEVER_MS if self.subscription is None else self.expires_ms


class Charge(NamedTuple):
    """The price of one use: see "Rounding" in ARCHITECTURE.md.

    credits_micros = input + output + endpoint = cost + profit, all in micro-credits;
    cost_price_micros in micro-USD, credit_price_micros in micro-USD per 1,000 credits.
    """

    credits_micros: int
    input_credits_micros: int
    output_credits_micros: int
    cost_credits_micros: int
    profit_credits_micros: int
    cost_price_micros: int
    credit_price_micros: int
    profit_ppm: int
    endpoint_credits_micros: int = 0


class Tokens(NamedTuple):
    """Tokens of each kind; those of caches are not among the input's."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Priced(NamedTuple):
    """Tokens and what they come to."""

    tokens: Tokens
    charge: Charge


class PinnedPrices(NamedTuple):
    """What a use is priced by, whatever becomes of prices since.

    Token prices by total input as in the price book (micro-USD per million tokens: input,
    output, cache read, cache write), the credit price, the margin, the endpoint's credits;
    and the history rows that say so: model, credit price, margin, endpoint.
    """

    bounds: tuple[int, ...]
    rates: tuple[tuple[int, int, int, int], ...]
    credit_price_micros: int
    profit_ppm: int
    endpoint_credits_micros: int
    versions: tuple[ObjectId | None, ObjectId | None, ObjectId | None, ObjectId | None]


class Hold(NamedTuple):
    """Credits set aside. `id` is that of the entry that placed it.

    `bound` is the most that its use may come to, by `prices`, which were in force at
    `priced_ms`: what is held. `reported` is what was used of it so far.
    """

    id: ObjectId
    client_id: str
    bound: Priced
    prices: PinnedPrices
    expires_ms: int
    priced_ms: int
    created_ms: int
    policy: int = DisconnectPolicy.RELEASE
    feature_endpoint: str = ""
    ai_model: str = ""
    labels: Mapping[str, str] | None = None
    reported: Priced | None = None

    @property
    def held_micros(self) -> int:
        """What is set aside."""
        return self.bound.charge.credits_micros


class Wallet(NamedTuple):
    """A wallet at one moment.

    credits_micros = sum of the grants' remaining_micros - debt_micros, always,
    and held_micros = sum of the holds' <= sum of the grants' remaining_micros.
    `grants` is in burn order; a grant whose time is over is among them only as
    far as credits are held. `version` is that of the row it was read from.
    """

    profile: Profile
    version: int
    credits_micros: int
    held_micros: int
    debt_micros: int
    sequence: int
    chain: bytes
    grants: tuple[Grant, ...]
    next_expiry_ms: int
    updated_ms: int
    holds: tuple[Hold, ...] = ()

    @property
    def available_micros(self) -> int:
        """What may be spent now, the wallet's own expiry aside. Negative in debt."""
        return self.credits_micros - self.held_micros

    def at_version(self, version: int) -> "Wallet":
        """The same wallet as the row of that version has it."""
        return Wallet(self.profile, version, *self[2:])


def new_wallet(profile: Profile) -> Wallet:
    """An empty wallet. Its chain starts from its id, so that no two chains are alike."""
    genesis = sha256(profile.id.binary).digest()
    return Wallet(profile, 0, 0, 0, 0, 0, genesis, (), NEVER_MS, profile.created_ms)


class Usage(NamedTuple):
    """What a usage event says. Two events of one key are the same if this is equal."""

    usage_key: str
    feature_endpoint: str
    ai_model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    occurred_ms: int
    labels: Mapping[str, str] | None


class Cause(NamedTuple):
    """Why an entry is there, apart from usage: who asked, by which request."""

    client_id: str
    request_id: str = ""
    reason: str = ""
    labels: Mapping[str, str] | None = None
    occurred_ms: int = 0
    decrease_source: ObjectId | None = None
    payment_transaction_id: ObjectId | None = None
    reverses_id: ObjectId | None = None


class Movement(NamedTuple):
    """What an entry took from a grant (negative) or put into it."""

    grant_id: ObjectId
    credits_micros: int


class Entry(NamedTuple):
    """One movement of a wallet: `zaaz.ledger.v1.CreditsTransaction`, and CreditsUsage with it.

    `signed_micros` is the change of the balance: the sum of the movements less
    the change of the debt. Exactly one of `source` and `decrease_reason` is set.
    `hold_id` is that of the hold it placed, extended or ended. `period` is that of
    the package that it began, added to or ended.
    """

    id: ObjectId
    profile: Profile
    sequence: int
    signed_micros: int
    source: int
    decrease_reason: int
    movements: tuple[Movement, ...]
    balance_after_micros: int
    held_after_micros: int
    debt_after_micros: int
    counter_account: str
    cause: Cause
    created_ms: int
    chain: bytes
    shortfall_micros: int = 0
    usage: Usage | None = None
    charge: Charge | None = None
    grant: Grant | None = None
    hold_id: ObjectId | None = None
    held_change_micros: int = 0
    period: Period | None = None

    def with_chain(self, chain: bytes) -> "Entry":
        """The same entry with its link. `_replace` costs three times as much."""
        return Entry(*self[:13], chain, *self[14:])


@dataclass(frozen=True, slots=True)
class Writer:
    """A usage stream's writer: how far it is, and which stream holds it."""

    key: str
    epoch: int
    next_offset: int
