"""The rules of money, pure: (wallet, operation, now) -> (wallet, entries).

No I/O and no clock: the same input gives the same output, so the committer may
run it again after a lost transaction. A refusal is a DomainError and leaves
nothing behind. What is due expires first, so nothing depends on a worker.
"""

from typing import NamedTuple

from bson import ObjectId

from server.kernel.clock import iso
from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.ids import derived_id
from server.kernel.money import in_range
from server.ledger.chain import link
from server.ledger.grants import burn, moves_of, next_expiry, put, return_to, take_from
from server.ledger.model import (
    MAX_GRANTS,
    NEVER_MS,
    Cause,
    DecreaseReason,
    Entry,
    Grant,
    IncreaseSource,
    Movement,
    OverdraftPolicy,
    Wallet,
)
from server.ledger.operations import AddGrant, ChangeSettings, Consume, Reverse, Use
from server.ledger.refusals import insufficient, too_many_grants

EXPIRY_CLIENT = "zaaz"
"""The client_id of entries that nobody asked for."""

_SOURCE_ACCOUNTS = {source: f"source:{source.name.lower()}" for source in IncreaseSource}


class Applied(NamedTuple):
    """The wallet after, and the entries in their order; the operation's own is the last."""

    wallet: Wallet
    entries: tuple[Entry, ...]


def expire(wallet: Wallet, now_ms: int) -> Applied:
    """Voids what is left of grants that are due, an entry each; held credits outlive theirs."""
    entries: list[Entry] = []
    while wallet.next_expiry_ms <= now_ms:
        free_micros = wallet.available_micros + wallet.debt_micros
        grant = next((g for g in wallet.grants if g.expires_ms <= now_ms), None)
        if grant is None or free_micros <= 0:
            break
        taken = min(grant.remaining_micros, free_micros)
        wallet, entry = _post(
            wallet,
            _Posting(
                # No client_id begins so, and a usage's id begins with one: the two never meet.
                id=derived_id("#expiry", str(grant.id), str(wallet.sequence + 1)),
                signed_micros=-taken,
                movements=(Movement(grant.id, -taken),),
                grants=take_from(wallet.grants, grant.id, taken),
                decrease_reason=DecreaseReason.EXPIRY,
                counter_account="breakage:expiry",
                cause=Cause(EXPIRY_CLIENT, occurred_ms=grant.expires_ms),
            ),
            now_ms,
        )
        entries.append(entry)
    return Applied(wallet, tuple(entries))


def add_grant(wallet: Wallet, operation: AddGrant, now_ms: int) -> Applied:
    """AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS, FIELD_INVALID for an expiry that has passed."""
    wallet, expired = expire(wallet, now_ms)
    if operation.expires_ms <= now_ms:
        raise field_invalid("expires_time", "must be in the future")
    amount = operation.credits_micros
    repaid = min(wallet.debt_micros, amount)
    grant = Grant(
        operation.id,
        operation.source,
        amount,
        amount - repaid,
        operation.priority,
        operation.expires_ms,
        now_ms,
        wallet.sequence + 1,
    )
    wallet, entry = _post(
        wallet,
        _Posting(
            id=operation.id,
            signed_micros=amount,
            movements=moves_of((grant.id, grant.remaining_micros)),
            grants=put(wallet.grants, grant),
            debt_change_micros=-repaid,
            source=operation.source,
            counter_account=_SOURCE_ACCOUNTS[IncreaseSource(operation.source)],
            cause=operation.cause,
            grant=grant,
        ),
        now_ms,
    )
    return Applied(wallet, (*expired, entry))


def consume(wallet: Wallet, operation: Consume, now_ms: int) -> Applied:
    """INSUFFICIENT_CREDITS, WALLET_EXPIRED."""
    wallet, expired = expire(wallet, now_ms)
    amount = operation.credits_micros
    if wallet.profile.expires_ms <= now_ms:
        raise DomainError(
            Reason.WALLET_EXPIRED,
            "the wallet's subscription has expired",
            {"expires_time": iso(wallet.profile.expires_ms)},
        )
    if wallet.available_micros < amount:
        raise insufficient(wallet.available_micros, amount)
    grants, movements = burn(wallet.grants, amount)
    wallet, entry = _post(
        wallet,
        _Posting(
            id=operation.id,
            signed_micros=-amount,
            movements=movements,
            grants=grants,
            decrease_reason=DecreaseReason.CONSUMPTION,
            counter_account="revenue:consumption",
            cause=operation.cause,
        ),
        now_ms,
    )
    return Applied(wallet, (*expired, entry))


def use(wallet: Wallet, operation: Use, now_ms: int) -> Applied:
    """Bills usage by the wallet's overdraft policy. AMOUNT_OUT_OF_RANGE only.

    Written out rather than through `_post`: this is the hot path.
    """
    expired: tuple[Entry, ...] = ()
    if wallet.next_expiry_ms <= now_ms:
        wallet, expired = expire(wallet, now_ms)
    profile, version, balance, held, debt, sequence, chain, grants, _, _ = wallet
    charge = operation.charge
    price = charge.credits_micros
    burned = min(price, max(0, balance - held))
    shortfall = price - burned
    if shortfall and profile.overdraft_policy == OverdraftPolicy.CARRY_DEBT:
        debt = in_range("debt_micros", debt + shortfall)
        balance = in_range("credits_micros", balance - shortfall)
        signed, shortfall = -price, 0
    else:
        signed = -burned
    balance -= burned
    grants, movements = burn(grants, burned)
    sequence += 1
    entry = Entry(
        operation.id,
        profile,
        sequence,
        signed,
        0,
        DecreaseReason.USAGE,
        movements,
        balance,
        held,
        debt,
        "revenue:usage",
        Cause(operation.client_id),
        now_ms,
        chain,
        shortfall,
        operation.usage,
        charge,
    )
    chain = link(chain, entry)
    expiry = wallet.next_expiry_ms if len(grants) == len(wallet.grants) else next_expiry(grants)
    wallet = Wallet(profile, version, balance, held, debt, sequence, chain, grants, expiry, now_ms)
    return Applied(wallet, (*expired, entry.with_chain(chain)))


def reverse(wallet: Wallet, operation: Reverse, now_ms: int) -> Applied:
    """NOT_REVERSIBLE; INSUFFICIENT_CREDITS where granted credits are spent already.

    TOO_MANY_GRANTS where burned ones would return to a wallet that has others by now.
    """
    original = operation.original
    if not _is_reversible(original, now_ms):
        raise DomainError(
            Reason.NOT_REVERSIBLE,
            "expiries, reversals and grants that have expired cannot be reversed",
            {"id": original.id},
        )
    wallet, expired = expire(wallet, now_ms)
    undo = _take_back if original.source else _give_back
    wallet, entry = _post(wallet, undo(wallet, operation, now_ms), now_ms)
    return Applied(wallet, (*expired, entry))


def _is_reversible(original: Entry, now_ms: int) -> bool:
    if original.source == IncreaseSource.REVERSAL:
        return False
    # What is left of an expired grant is void already: to take the grant back would take it twice.
    if original.source and original.grant is not None:
        return original.grant.expires_ms > now_ms
    return original.decrease_reason not in (DecreaseReason.EXPIRY, DecreaseReason.REVERSAL)


def change_settings(wallet: Wallet, operation: ChangeSettings, now_ms: int) -> Applied:
    """ETAG_MISMATCH. Makes no entry of its own: those of the result are what expired before."""
    wallet, expired = expire(wallet, now_ms)
    profile = wallet.profile
    if operation.settings_version not in (None, profile.settings_version):
        raise DomainError(
            Reason.ETAG_MISMATCH,
            "the wallet's settings have changed since: read it again",
            {"etag": profile.settings_version},
        )
    policy, threshold = operation.overdraft_policy, operation.low_balance_threshold_micros
    profile = profile._replace(
        overdraft_policy=profile.overdraft_policy if policy is None else policy,
        low_balance_threshold_micros=(
            profile.low_balance_threshold_micros if threshold is None else threshold
        ),
        settings_version=profile.settings_version + 1,
    )
    return Applied(wallet._replace(profile=profile, updated_ms=now_ms), expired)


class _Posting(NamedTuple):
    """An entry before the wallet has numbered and chained it."""

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


def _post(wallet: Wallet, posting: _Posting, now_ms: int) -> tuple[Wallet, Entry]:
    if len(posting.grants) > max(MAX_GRANTS, len(wallet.grants)):
        raise too_many_grants(MAX_GRANTS)
    balance = in_range("credits_micros", wallet.credits_micros + posting.signed_micros)
    debt = in_range("debt_micros", wallet.debt_micros + posting.debt_change_micros)
    entry = Entry(
        id=posting.id,
        profile=wallet.profile,
        sequence=wallet.sequence + 1,
        signed_micros=posting.signed_micros,
        source=posting.source,
        decrease_reason=posting.decrease_reason,
        movements=posting.movements,
        balance_after_micros=balance,
        held_after_micros=wallet.held_micros,
        debt_after_micros=debt,
        counter_account=posting.counter_account,
        cause=posting.cause,
        created_ms=now_ms,
        chain=wallet.chain,
        grant=posting.grant,
    )
    entry = entry.with_chain(link(wallet.chain, entry))
    after = wallet._replace(
        credits_micros=balance,
        debt_micros=debt,
        sequence=entry.sequence,
        chain=entry.chain,
        grants=posting.grants,
        next_expiry_ms=next_expiry(posting.grants),
        updated_ms=now_ms,
    )
    return after, entry


def _give_back(wallet: Wallet, operation: Reverse, now_ms: int) -> _Posting:
    """A decrease returns to the grants that it burned, once the wallet's debt is repaid."""
    original = operation.original
    amount = -original.signed_micros
    burned = -sum(movement.credits_micros for movement in original.movements)
    repaid = min(wallet.debt_micros, amount)
    # What was owed rather than burned has no grant to return to.
    unowned = amount - burned
    made = max(0, unowned - repaid)
    left = amount - repaid - made
    grants, movements = wallet.grants, []
    as_made = {grant.id: grant for grant in operation.grants}
    for grant_id, micros in original.movements:
        back = min(-micros, left)
        if back:
            grants = return_to(grants, as_made[grant_id], back)
            movements.append(Movement(grant_id, back))
            left -= back
    grant = None
    if made:
        sequence = wallet.sequence + 1
        source = IncreaseSource.REVERSAL
        grant = Grant(operation.id, source, made, made, 0, NEVER_MS, now_ms, sequence)
        grants = put(grants, grant)
        movements.append(Movement(grant.id, made))
    return _Posting(
        id=operation.id,
        signed_micros=amount,
        movements=tuple(movements),
        grants=grants,
        debt_change_micros=-repaid,
        source=IncreaseSource.REVERSAL,
        counter_account=original.counter_account,
        cause=operation.cause,
        grant=grant,
    )


def _take_back(wallet: Wallet, operation: Reverse, _now_ms: int) -> _Posting:
    """An increase is taken from its own grant first, then as any decrease burns."""
    original = operation.original
    amount = original.signed_micros
    free = max(0, wallet.available_micros)
    carries = wallet.profile.overdraft_policy == OverdraftPolicy.CARRY_DEBT
    if free < amount and not carries:
        raise insufficient(free, amount)
    burned = min(amount, free)
    own = next((g.remaining_micros for g in wallet.grants if g.id == original.id), 0)
    first = min(own, burned)
    grants = take_from(wallet.grants, original.id, first) if first else wallet.grants
    grants, rest = burn(grants, burned - first)
    return _Posting(
        id=operation.id,
        signed_micros=-amount,
        movements=(*moves_of((original.id, -first)), *rest),
        grants=grants,
        debt_change_micros=amount - burned,
        decrease_reason=DecreaseReason.REVERSAL,
        counter_account=original.counter_account,
        cause=operation.cause,
    )
