"""A statement's lines as values: a canonical form, a proof, and what follows from the form.

The canonical forms are JSON arrays without white space (ARCHITECTURE.md):

    statement    version, user, wallet, start, end, then sequence, balance and
                 chain before the first transaction
    transaction  the server's own, which its chain is reckoned from
    head         version, wallet, sequence, chain, balance, signed, key id

Ids and hashes are hex, times milliseconds, amounts micro-credits.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import EnumDescriptor
from zaaz.ledger.v1.credits_transaction_pb2 import DecreaseReason
from zaaz.ledger.v1.grant_pb2 import IncreaseSource
from zaaz.wallet.v1.statement_service_pb2 import GetStatementResponse, SignedHead, StatementLine

VERSION: Final = 1
STATEMENT: Final = "statement"
TRANSACTION: Final = "transaction"
HEAD: Final = "head"

_SHOWN_CHARACTERS: Final = 80

Facts = Mapping[str, str | int]
"""The readable fields of a line, in their order."""


class UnreadableForm(ValueError):  # noqa: N818 - it names what was found
    """A canonical form is not what its line's type says."""


class StatementRow(NamedTuple):
    """One line. `canonical` is the exact text; `proof` is hex."""

    type: str
    canonical: str
    proof: str


class Opening(NamedTuple):
    """What the first line says. `chain` is 32 bytes."""

    user_id: str
    wallet_id: str
    start_ms: int
    end_ms: int
    sequence: int
    balance_micros: int
    chain: bytes


class Transaction(NamedTuple):
    """As much of a transaction as it is verified by."""

    wallet_id: str
    user_id: str
    sequence: int
    signed_micros: int
    balance_after_micros: int


class Head(NamedTuple):
    """What the last line says, and is signed for. `chain` is 32 bytes."""

    wallet_id: str
    sequence: int
    chain: bytes
    balance_after_micros: int
    signed_ms: int
    key_id: str


def opening_row(page: GetStatementResponse) -> StatementRow:
    """The first line, from any page of a statement."""
    form = (
        VERSION,
        page.user_id,
        page.user_wallet_id,
        page.start_time.ToMilliseconds(),
        page.end_time.ToMilliseconds(),
        page.opening_sequence,
        page.opening_balance_micros,
        page.opening_chain,
    )
    text = _json(form)
    return StatementRow(STATEMENT, text, checksum(text))


def transaction_row(line: StatementLine) -> StatementRow:
    """The line of a transaction."""
    return StatementRow(TRANSACTION, line.canonical, line.transaction.chain)


def head_row(head: SignedHead) -> StatementRow:
    """The last line."""
    form = (
        VERSION,
        head.user_wallet_id,
        head.sequence,
        head.chain,
        head.balance_after_micros,
        head.signed_time.ToMilliseconds(),
        head.key_id,
    )
    return StatementRow(HEAD, _json(form), head.signature.hex())


def checksum(canonical: str) -> str:
    """The proof of a first line: against slips alone, since no one signs it."""
    return sha256(canonical.encode()).hexdigest()


def read_opening(canonical: str) -> Opening:
    """UnreadableForm."""
    form = _array(canonical, 8)
    user_id, wallet_id = _texts(form[1:3])
    start_ms, end_ms, sequence, balance = _numbers(form[3:7])
    return Opening(user_id, wallet_id, start_ms, end_ms, sequence, balance, _hash(form[7]))


def read_transaction(canonical: str) -> Transaction:
    """UnreadableForm."""
    form = _array(canonical, 19)
    wallet_id, user_id = _texts(form[2:4])
    sequence, signed, balance = _numbers((form[4], form[5], form[9]))
    return Transaction(wallet_id, user_id, sequence, signed, balance)


def read_head(canonical: str) -> Head:
    """UnreadableForm."""
    form = _array(canonical, 7)
    wallet_id, key_id = _texts((form[1], form[6]))
    sequence, balance, signed = _numbers((form[2], form[4], form[5]))
    return Head(wallet_id, sequence, _hash(form[3]), balance, signed, key_id)


def facts(row: StatementRow) -> Facts:
    """What a line says to its reader, from its canonical form alone. UnreadableForm."""
    read = _FACTS.get(row.type)
    if read is None:
        raise UnreadableForm(f"no line is of the type {row.type!r}")
    try:
        return read(row.canonical)
    except UnreadableForm:
        raise
    except (LookupError, TypeError, ValueError, OverflowError, OSError) as error:
        raise UnreadableForm(f"the canonical form cannot be read: {error}") from None


def _opening_facts(canonical: str) -> Facts:
    opening = read_opening(canonical)
    return {
        "user_id": opening.user_id,
        "user_wallet_id": opening.wallet_id,
        "start_time": _moment(opening.start_ms),
        "end_time": _moment(opening.end_ms),
        "opening_sequence": opening.sequence,
        "opening_balance_micros": opening.balance_micros,
    }


def _transaction_facts(canonical: str) -> Facts:
    form = _array(canonical, 19)
    cause, usage = form[15], form[17]
    # A usage's cause is its client alone; what else there is to say stands in the usage.
    client_id, request_id, reason, occurred = (
        (cause, "", "", usage[7]) if usage else (cause[0], cause[1], cause[2], cause[4])
    )
    usage_key, feature_endpoint, ai_model = usage[:3] if usage else ("", "", "")
    # Only what moves a hold says so, at its end.
    hold_id, held_change = form[19] if len(form) > 19 else ("", 0)
    signed, balance, held, debt, shortfall = _numbers((form[5], *form[9:13]))
    sequence, created_ms, occurred_ms = _numbers((form[4], form[14], occurred))
    _numbers((held_change,))
    _texts((reason, form[13], client_id, request_id, usage_key, ai_model, feature_endpoint))
    _texts((form[1], hold_id))
    return {
        "sequence": sequence,
        "created_time": _moment(created_ms),
        "occurred_time": _moment(occurred_ms),
        "cause": _cause(*_numbers(form[6:8])),
        "credits_micros": signed,
        "held_change_micros": held_change,
        "balance_after_micros": balance,
        "held_after_micros": held,
        "debt_after_micros": debt,
        "shortfall_micros": shortfall,
        "counter_account": form[13],
        "ai_model": ai_model,
        "feature_endpoint": feature_endpoint,
        "client_id": client_id,
        "request_id": request_id,
        "usage_key": usage_key,
        "reason": reason,
        "hold_id": hold_id,
        "transaction_id": form[1],
    }


def _head_facts(canonical: str) -> Facts:
    head = read_head(canonical)
    return {
        "user_wallet_id": head.wallet_id,
        "sequence": head.sequence,
        "chain": head.chain.hex(),
        "balance_after_micros": head.balance_after_micros,
        "signed_time": _moment(head.signed_ms),
        "key_id": head.key_id,
    }


_FACTS: Final[Mapping[str, Callable[[str], Facts]]] = {
    STATEMENT: _opening_facts,
    TRANSACTION: _transaction_facts,
    HEAD: _head_facts,
}


def _cause(source: int, decrease_reason: int) -> str:
    if source:
        return _name(IncreaseSource.DESCRIPTOR, source, "INCREASE_SOURCE_")
    return _name(DecreaseReason.DESCRIPTOR, decrease_reason, "DECREASE_REASON_")


def _name(enum: EnumDescriptor, number: int, prefix: str) -> str:
    """The name of an enum's value; the number itself for one that is newer than this SDK."""
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(prefix).lower()


def _moment(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def _array(canonical: str, at_least: int) -> list[Any]:
    try:
        form = json.loads(canonical)
    except (ValueError, RecursionError):
        raise UnreadableForm("the canonical form is no JSON") from None
    if not isinstance(form, list) or len(form) < at_least:
        raise UnreadableForm(f"the canonical form is no array of {at_least} values")
    if form[0] != VERSION:
        raise UnreadableForm(f"the canonical form is not of version {VERSION}")
    return form


def _texts(values: Any) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str):
            raise UnreadableForm(f"the canonical form has {_shown(value)} where a text belongs")
    return tuple(values)


def _numbers(values: Any) -> tuple[int, ...]:
    for value in values:
        if type(value) is not int:
            raise UnreadableForm(f"the canonical form has {_shown(value)} where a number belongs")
    return tuple(values)


def _hash(value: Any) -> bytes:
    try:
        digest = bytes.fromhex(*_texts((value,)))
    except ValueError:
        digest = b""
    if len(digest) != sha256().digest_size or digest.hex() != value:
        raise UnreadableForm(f"the canonical form has {_shown(value)} where a hash belongs")
    return digest


def _shown(value: object) -> str:
    return repr(value)[:_SHOWN_CHARACTERS]


def _json(form: tuple[str | int, ...]) -> str:
    return json.dumps(form, separators=(",", ":"), ensure_ascii=False)
