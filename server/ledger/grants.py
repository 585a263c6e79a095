"""A wallet's grants: always in burn order, and never an empty one."""

from bson import ObjectId

from server.ledger.model import NEVER_MS, Grant, Hold, Movement, Profile


def burn(grants: tuple[Grant, ...], amount: int) -> tuple[tuple[Grant, ...], tuple[Movement, ...]]:
    """Takes `amount` from grants in burn order; the caller knows that they have it.

    Where holds may keep some over their time, it is `spend` that is right.
    """
    if not amount:
        return grants, ()
    first = grants[0]
    if amount < first.remaining_micros:
        burnt = first.with_remaining(first.remaining_micros - amount)
        return (burnt, *grants[1:]), (Movement(first.id, -amount),)
    moves: list[Movement] = []
    emptied = 0
    rest = amount
    for grant in grants:
        if rest < grant.remaining_micros:
            break
        moves.append(Movement(grant.id, -grant.remaining_micros))
        rest -= grant.remaining_micros
        emptied += 1
    grants = grants[emptied:]
    if rest:
        moves.append(Movement(grants[0].id, -rest))
        grants = (grants[0].with_remaining(grants[0].remaining_micros - rest), *grants[1:])
    return grants, tuple(moves)


def take_from(grants: tuple[Grant, ...], grant_id: ObjectId, amount: int) -> tuple[Grant, ...]:
    """The grants with `amount` less in one of them; an empty one is dropped."""
    kept = (
        g.with_remaining(g.remaining_micros - amount) if g.id == grant_id else g for g in grants
    )
    return tuple(g for g in kept if g.remaining_micros)


def return_to(grants: tuple[Grant, ...], as_made: Grant, amount: int) -> tuple[Grant, ...]:
    """The grants with `amount` back in one, which is made again if it is gone."""
    if not any(grant.id == as_made.id for grant in grants):
        return put(grants, as_made.with_remaining(amount))
    return take_from(grants, as_made.id, -amount)


def put(grants: tuple[Grant, ...], grant: Grant) -> tuple[Grant, ...]:
    """The grants with one more, in burn order; an empty one is not kept."""
    if not grant.remaining_micros:
        return grants
    return tuple(sorted((*grants, grant), key=lambda g: g.burn_order))


def moves_of(*moves: tuple[ObjectId, int]) -> tuple[Movement, ...]:
    """Movements of these amounts, without those of nothing."""
    return tuple(Movement(grant_id, micros) for grant_id, micros in moves if micros)


def split_by_time(
    grants: tuple[Grant, ...], time_ms: int
) -> tuple[tuple[Grant, ...], tuple[Grant, ...]]:
    """Those whose time is over, which only holds keep, and the others."""
    over = tuple(grant for grant in grants if grant.expires_ms <= time_ms)
    if not over:
        return (), grants
    return over, tuple(grant for grant in grants if grant.expires_ms > time_ms)


def merge(some: tuple[Grant, ...], others: tuple[Grant, ...]) -> tuple[Grant, ...]:
    """All of them in burn order."""
    if not some:
        return others
    return tuple(sorted((*some, *others), key=lambda grant: grant.burn_order))


def spend(
    grants: tuple[Grant, ...], amount: int, time_ms: int
) -> tuple[tuple[Grant, ...], tuple[Movement, ...]]:
    """Takes `amount` in burn order from what is not held over its time."""
    over, live = split_by_time(grants, time_ms)
    left, movements = burn(live, amount)
    return merge(over, left), movements


def next_due(
    grants: tuple[Grant, ...], holds: tuple[Hold, ...], profile: Profile, after_ms: int
) -> int:
    """When the next grant ends after that time, or any hold or period; NEVER_MS if none does."""
    due = min((g.expires_ms for g in grants if g.expires_ms > after_ms), default=NEVER_MS)
    if holds:
        due = min((due, *(hold.expires_ms for hold in holds)))
    return min(due, profile.period_ends_ms)
