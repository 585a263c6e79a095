"""How an entry is written onto a wallet: numbered, chained, with the balances after it."""

from typing import NamedTuple

from bson import ObjectId

from server.kernel.money import in_range
from server.ledger.chain import link
from server.ledger.grants import moves_of, next_due, put
from server.ledger.model import (
    MAX_GRANTS,
    Cause,
    Charge,
    Entry,
    Grant,
    Hold,
    HoldState,
    IncreaseSource,
    Movement,
    Period,
    Usage,
    Wallet,
)
from server.ledger.refusals import too_many_grants


class HoldChange(NamedTuple):
    """A hold as an entry left it. `ended_by` is that entry, for one that has ended."""

    hold: Hold
    state: int
    captured_micros: int = 0
    ended_ms: int = 0
    ended_by: ObjectId | None = None

    @property
    def is_billed(self) -> bool:
        """Whether its end billed a use."""
        return self.state == HoldState.CAPTURED or self.captured_micros > 0


class Applied(NamedTuple):
    """The wallet after, and the entries in their order.

    `entry` is the operation's own, None if it makes none; the others are of what
    was due. `holds` are those that changed.
    """

    wallet: Wallet
    entries: tuple[Entry, ...] = ()
    entry: Entry | None = None
    holds: tuple[HoldChange, ...] = ()


class Posting(NamedTuple):
    """An entry before the wallet has numbered and chained it. `holds` None: as they are."""

    id: ObjectId
    signed_micros: int
    movements: tuple[Movement, ...]
    grants: tuple[Grant, ...]
    counter_account: str
    cause: Cause
    debt_change_micros: int = 0
    source: int = 0
    decrease_reason: int = 0
    grant: Grant | None = None
    holds: tuple[Hold, ...] | None = None
    hold_id: ObjectId | None = None
    held_change_micros: int = 0
    usage: Usage | None = None
    charge: Charge | None = None
    shortfall_micros: int = 0
    period: Period | None = None


class Credits(NamedTuple):
    """What a grant is made of."""

    credits_micros: int
    source: int
    priority: int
    expires_ms: int


def granting(
    wallet: Wallet, made_of: Credits, grant_id: ObjectId, cause: Cause, now_ms: int
) -> Posting:
    """A grant; a debt is repaid from it first."""
    amount, source, priority, expires_ms = made_of
    repaid = min(wallet.debt_micros, amount)
    grant = Grant(
        grant_id,
        source,
        amount,
        amount - repaid,
        priority,
        expires_ms,
        now_ms,
        wallet.sequence + 1,
    )
    return Posting(
        id=grant_id,
        signed_micros=amount,
        movements=moves_of((grant.id, grant.remaining_micros)),
        grants=put(wallet.grants, grant),
        debt_change_micros=-repaid,
        source=source,
        counter_account=f"source:{IncreaseSource(source).name.lower()}",
        cause=cause,
        grant=grant,
    )


def post(
    wallet: Wallet,
    posting: Posting,
    now_ms: int,
    due_ms: int | None = None,
    max_grants: int | None = None,
) -> tuple[Wallet, Entry]:
    """The wallet with one entry more. AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS.

    What was due until `due_ms` (None: now) is dealt with.
    """
    most = MAX_GRANTS if max_grants is None else max_grants
    if len(posting.grants) > max(most, len(wallet.grants)):
        raise too_many_grants(most)
    balance = in_range("credits_micros", wallet.credits_micros + posting.signed_micros)
    debt = in_range("debt_micros", wallet.debt_micros + posting.debt_change_micros)
    held = in_range("held_micros", wallet.held_micros + posting.held_change_micros)
    entry = Entry(
        id=posting.id,
        profile=wallet.profile,
        sequence=wallet.sequence + 1,
        signed_micros=posting.signed_micros,
        source=posting.source,
        decrease_reason=posting.decrease_reason,
        movements=posting.movements,
        balance_after_micros=balance,
        held_after_micros=held,
        debt_after_micros=debt,
        counter_account=posting.counter_account,
        cause=posting.cause,
        created_ms=now_ms,
        chain=wallet.chain,
        shortfall_micros=posting.shortfall_micros,
        usage=posting.usage,
        charge=posting.charge,
        grant=posting.grant,
        hold_id=posting.hold_id,
        held_change_micros=posting.held_change_micros,
        period=posting.period,
    )
    entry = entry.with_chain(link(wallet.chain, entry))
    holds = wallet.holds if posting.holds is None else posting.holds
    after = wallet._replace(
        credits_micros=balance,
        held_micros=held,
        debt_micros=debt,
        sequence=entry.sequence,
        chain=entry.chain,
        grants=posting.grants,
        next_expiry_ms=next_due(
            posting.grants, holds, wallet.profile, now_ms if due_ms is None else due_ms
        ),
        updated_ms=now_ms,
        holds=holds,
    )
    return after, entry
