"""The rules of money, pure: (wallet, operation, now) -> (wallet, entries).

No I/O and no clock: the same input gives the same output, so the committer may
run it again after a lost transaction. A refusal is a DomainError and leaves
nothing behind. What is due expires first, so nothing depends on a worker.
"""

from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.money import in_range
from server.ledger.chain import link
from server.ledger.expiry import expire
from server.ledger.grants import burn, moves_of, next_due, put, return_to, spend, take_from
from server.ledger.holds import capture_by_use, wallet_expired
from server.ledger.model import (
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
from server.ledger.operations import AddGrant, ChangeSettings, Consume, Reverse, Tidy, Use
from server.ledger.posting import Applied, Credits, HoldChange, Posting, granting, post
from server.ledger.refusals import insufficient

_IRREVERSIBLE_SOURCES = (
    IncreaseSource.REVERSAL,
    IncreaseSource.RELEASE,
    IncreaseSource.HOLD_EXPIRY,
)
_IRREVERSIBLE_REASONS = (
    DecreaseReason.EXPIRY,
    DecreaseReason.REVERSAL,
    DecreaseReason.HOLD,
    DecreaseReason.PACKAGE_END,
)


def tidy(wallet: Wallet, _operation: Tidy, now_ms: int) -> Applied:
    """Only what has become due."""
    return expire(wallet, now_ms)


def add_grant(wallet: Wallet, operation: AddGrant, now_ms: int) -> Applied:
    """AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS, FIELD_INVALID for an expiry that has passed."""
    wallet, expired, _, changes = expire(wallet, now_ms)
    if operation.expires_ms <= now_ms:
        raise field_invalid("expires_time", "must be in the future")
    posting = granting(wallet, Credits(*operation[2:6]), operation.id, operation.cause, now_ms)
    wallet, entry = post(wallet, posting, now_ms)
    return Applied(wallet, (*expired, entry), entry, changes)


def consume(wallet: Wallet, operation: Consume, now_ms: int) -> Applied:
    """INSUFFICIENT_CREDITS, WALLET_EXPIRED."""
    wallet, expired, _, changes = expire(wallet, now_ms)
    amount = operation.credits_micros
    if wallet.profile.expires_ms <= now_ms and not operation.bypass_expiry:
        raise wallet_expired(wallet)
    if wallet.available_micros < amount:
        raise insufficient(wallet.available_micros, amount)
    grants, movements = spend(wallet.grants, amount, now_ms)
    wallet, entry = post(
        wallet,
        Posting(
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
    return Applied(wallet, (*expired, entry), entry, changes)


def use(wallet: Wallet, operation: Use, now_ms: int) -> Applied:
    """Bills usage by the wallet's overdraft policy. AMOUNT_OUT_OF_RANGE, HOLD_ENDED.

    Written out rather than through `post`: this is the hot path.
    """
    if operation.hold_id is not None:
        captured = capture_by_use(wallet, operation, now_ms)
        if captured is not None:
            return captured
    expired: tuple[Entry, ...] = ()
    changes: tuple[HoldChange, ...] = ()
    if wallet.next_expiry_ms <= now_ms:
        wallet, expired, _, changes = expire(wallet, now_ms)
    profile, version, balance, held, debt, sequence, chain, grants, _, _, holds = wallet
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
    grants, movements = spend(grants, burned, now_ms) if holds else burn(grants, burned)
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
    due = wallet.next_expiry_ms
    if len(grants) != len(wallet.grants):
        due = next_due(grants, holds, profile, now_ms)
    wallet = Wallet(
        profile, version, balance, held, debt, sequence, chain, grants, due, now_ms, holds
    )
    entry = entry.with_chain(chain)
    return Applied(wallet, (*expired, entry), entry, changes)


def reverse(wallet: Wallet, operation: Reverse, now_ms: int) -> Applied:
    """NOT_REVERSIBLE; INSUFFICIENT_CREDITS where granted credits are spent already.

    TOO_MANY_GRANTS where burned ones would return to a wallet that has others by now.
    """
    original = operation.original
    if not _is_reversible(original, now_ms):
        raise DomainError(
            Reason.NOT_REVERSIBLE,
            "expiries, reversals, holds and grants that have expired cannot be reversed",
            {"id": original.id},
        )
    wallet, expired, _, changes = expire(wallet, now_ms)
    undo = _take_back if original.source else _give_back
    # A grant whose time was over meanwhile is made again all the same, and is due at once.
    wallet, entry = post(wallet, undo(wallet, operation, now_ms), now_ms, due_ms=0)
    return Applied(wallet, (*expired, entry), entry, changes)


def _is_reversible(original: Entry, now_ms: int) -> bool:
    if original.source in _IRREVERSIBLE_SOURCES:
        return False
    # What is left of an expired grant is void already: to take the grant back would take it twice.
    if original.source and original.grant is not None:
        return original.grant.expires_ms > now_ms
    return original.decrease_reason not in _IRREVERSIBLE_REASONS


def change_settings(wallet: Wallet, operation: ChangeSettings, now_ms: int) -> Applied:
    """ETAG_MISMATCH. Makes no entry of its own: those of the result are what expired before."""
    wallet, expired, _, changes = expire(wallet, now_ms)
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
    wallet = wallet._replace(profile=profile, updated_ms=now_ms)
    return Applied(wallet, expired, None, changes)


def _give_back(wallet: Wallet, operation: Reverse, now_ms: int) -> Posting:
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
    return Posting(
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


def _take_back(wallet: Wallet, operation: Reverse, now_ms: int) -> Posting:
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
    grants, rest = spend(grants, burned - first, now_ms)
    return Posting(
        id=operation.id,
        signed_micros=-amount,
        movements=(*moves_of((original.id, -first)), *rest),
        grants=grants,
        debt_change_micros=amount - burned,
        decrease_reason=DecreaseReason.REVERSAL,
        counter_account=original.counter_account,
        cause=operation.cause,
    )
