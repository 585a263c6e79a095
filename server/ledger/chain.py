"""The hash chain of a wallet's entries.

    chain(n) = SHA-256(chain(n-1) || canonical(entry n)),  chain(0) = SHA-256(wallet id)

The canonical form is a JSON array in UTF-8 without white space, ids as hex,
times in milliseconds: any language can rebuild it from a statement's line.
"""

from hashlib import sha256

import orjson

from server.ledger.model import Charge, Entry, Grant

CANONICAL_VERSION = 1


def link(previous: bytes, entry: Entry) -> bytes:
    """The chain after `entry`, 32 bytes. The entry's own `chain` takes no part."""
    return sha256(previous + canonical(entry)).digest()


def canonical(entry: Entry) -> bytes:
    """All that the entry says, but the copies of the wallet's email and plan."""
    profile, cause, usage = entry.profile, entry.cause, entry.usage
    fields: tuple[object, ...] = (
        CANONICAL_VERSION,
        entry.id.binary.hex(),
        profile.id.binary.hex(),
        profile.user_id.binary.hex(),
        entry.sequence,
        entry.signed_micros,
        entry.source,
        entry.decrease_reason,
        [(grant_id.binary.hex(), micros) for grant_id, micros in entry.movements],
        entry.balance_after_micros,
        entry.held_after_micros,
        entry.debt_after_micros,
        entry.shortfall_micros,
        entry.counter_account,
        entry.created_ms,
        (
            cause.client_id,
            cause.request_id,
            cause.reason,
            cause.labels,
            cause.occurred_ms,
            _hex(cause.decrease_source),
            _hex(cause.payment_transaction_id),
            _hex(cause.reverses_id),
        )
        if usage is None
        else cause.client_id,
        None if entry.grant is None else _grant(entry.grant),
        None if usage is None else (*usage,),
        None if entry.charge is None else _charge(entry.charge),
    )
    if entry.hold_id is not None:
        fields = (*fields, (entry.hold_id.binary.hex(), entry.held_change_micros))
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def _grant(grant: Grant) -> tuple[int, int, int]:
    return (grant.original_micros, grant.priority, grant.expires_ms)


def _charge(charge: Charge) -> tuple[int, ...]:
    # Left out where there is none, as before endpoints had prices: old chains stay true.
    return tuple(charge) if charge.endpoint_credits_micros else charge[:-1]


def _hex(value: object) -> str | None:
    return None if value is None else str(value)
