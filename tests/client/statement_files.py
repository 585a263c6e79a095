"""Statements made by hand, without the server: its chain and its signature said once more."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from zaaz_client.statements import FORMATS, StatementRow, key_id

USER = "65f0c0ffee65f0c0ffee65f0"
WALLET = "65f0c0ffee65f0c0ffee65f1"
GRANT = "65f0c0ffee65f0c0ffee65f2"
NOW_MS = 1_750_000_000_123
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
CREDIT = 1_000_000


@dataclass
class Made:
    """One transaction: what moved, and the texts that are its caller's own."""

    signed_micros: int
    reason: str = ""
    ai_model: str = ""
    held_change_micros: int | None = None


@dataclass
class Book:
    """A wallet's statement from after its transaction `opening_sequence` on."""

    made: Sequence[Made]
    opening_sequence: int = 0
    opening_balance_micros: int = 0
    key: Ed25519PrivateKey = KEY
    rows: list[StatementRow] = field(init=False)

    def __post_init__(self) -> None:
        chain = sha256(bytes.fromhex(WALLET)).digest()
        if self.opening_sequence:
            chain = sha256(b"an earlier transaction").digest()
        sequence, balance = self.opening_sequence, self.opening_balance_micros
        period = (NOW_MS - 60_000, NOW_MS)
        opening = compact([1, USER, WALLET, *period, sequence, balance, chain.hex()])
        proof = sha256(opening.encode()).hexdigest()
        self.rows = [StatementRow("statement", opening, proof)]
        for made in self.made:
            sequence, balance = sequence + 1, balance + made.signed_micros
            form = compact(transaction(made, sequence, balance))
            chain = sha256(chain + form.encode()).digest()
            self.rows.append(StatementRow("transaction", form, chain.hex()))
        public_key = self.key.public_key().public_bytes_raw()
        head = [1, WALLET, sequence, chain.hex(), balance, NOW_MS, key_id(public_key)]
        signature = self.key.sign(compact(head).encode())
        self.rows.append(StatementRow("head", compact(head), signature.hex()))

    def lines(self, format_name: str) -> list[bytes]:
        return written(self.rows, format_name)


def written(rows: Sequence[StatementRow], format_name: str) -> list[bytes]:
    """The lines of a file."""
    format_ = FORMATS[format_name]
    title = [format_.title] if format_.title else []
    return [line.encode() for line in (*title, *map(format_.write, rows))]


def compact(form: list[Any]) -> str:
    return json.dumps(form, separators=(",", ":"), ensure_ascii=False)


def transaction(made: Made, sequence: int, balance_micros: int) -> list[Any]:
    """The canonical form, by ARCHITECTURE.md."""
    signed = made.signed_micros
    occurred_ms = NOW_MS - 60_000 + sequence
    usage = None
    cause: Any = ["tests", f"r-{sequence}", made.reason, {"a": "b"}, occurred_ms, None, None, None]
    if made.ai_model:
        usage = [f"u-{sequence}", "", made.ai_model, 3, 4, 0, 0, occurred_ms, None]
        cause = "tests"
    increases = signed > 0
    form = [1, f"{sequence:024x}", WALLET, USER, sequence, signed]
    form += [2 if increases else 0, 0 if increases else 1, [[GRANT, signed]]]
    form += [balance_micros, 0, 0, 0, "source:bonus" if increases else "revenue:consumption"]
    form += [occurred_ms, cause, None, usage, None]
    if made.held_change_micros is not None:
        form.append(["65f0c0ffee65f0c0ffee65f3", made.held_change_micros])
    return form


def plain_book(
    transactions: int = 5, opening_sequence: int = 0, opening_balance_micros: int = 0
) -> Book:
    """So many transactions of every kind."""
    kinds = (
        Made(7 * CREDIT, reason='welcome, "you"\n=2+2'),
        Made(-CREDIT - 1, ai_model="openai/gpt-4o-mini"),
        Made(0, held_change_micros=5),
        Made(-3, reason="-é\x7f\u2028"),
    )
    made = [kinds[n % len(kinds)] for n in range(transactions)]
    return Book(made, opening_sequence, opening_balance_micros)
