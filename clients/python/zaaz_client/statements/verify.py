"""Whether a statement is whole, unchanged, and signed. Needs no server."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from zaaz_client.statements.formats import FORMATS, Format, NotALine
from zaaz_client.statements.rows import (
    HEAD,
    STATEMENT,
    TRANSACTION,
    Head,
    Opening,
    StatementRow,
    UnreadableForm,
    checksum,
    read_head,
    read_opening,
    read_transaction,
)

MAX_PROBLEMS: Final = 100
"""More are not told: a wrecked file is wrecked."""
MAX_LINE_BYTES: Final = 1_048_576
"""Far above what a transaction over a thousand grants takes."""

_PROOF: Final = re.compile("(?:[0-9a-f]{2})+")
_KEY_ID_DIGITS: Final = 16
_BEFORE_THE_FIRST: Final = 0
_SHOWN_CHARACTERS: Final = 80


class Problem(NamedTuple):
    """What is wrong, and with which line of the file (from 1)."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `opening` and `head` are None where the file has none that can be read."""

    problems: tuple[Problem, ...]
    transactions: int
    signature_checked: bool
    opening: Opening | None
    head: Head | None

    @property
    def good(self) -> bool:
        """Nothing is wrong, and the signature was among what was checked."""
        return not self.problems and self.signature_checked


def key_id(public_key: bytes) -> str:
    """How a head names the key that it is signed with."""
    return sha256(public_key).hexdigest()[:_KEY_ID_DIGITS]


def verify(lines: Iterable[bytes], public_keys: Collection[bytes] = ()) -> Verdict:
    """Checks a statement, as an opened file or lines with their line feeds.

    `public_keys`: 32 bytes each, of the server (ListSigningKeys). Without any,
    all but the signature is checked. ValueError for a key that is none.

    Found is every change of a line, every line too many, too few or out of
    place. Not signed is the period: a statement may be cut short at its front
    and begin where it then claims to, with the sequence that it shows.
    """
    keys = {key_id(key): Ed25519PublicKey.from_public_bytes(key) for key in public_keys}
    checker = _Checker(keys)
    number = 0
    for number, line in enumerate(lines, start=1):
        checker.take(number, line)
        if len(checker.problems) >= MAX_PROBLEMS:
            break
    else:
        checker.finish(number)
    return Verdict(
        tuple(checker.problems),
        checker.transactions,
        checker.signature_checked,
        checker.opening,
        checker.head,
    )


class _Place(NamedTuple):
    """Where the chain stands after a line."""

    sequence: int
    balance_micros: int
    chain: bytes


class _Checker:
    """Holds each line against the one before it."""

    def __init__(self, keys: dict[str, Ed25519PublicKey]) -> None:
        self.problems: list[Problem] = []
        self.transactions = 0
        self.signature_checked = False
        self.opening: Opening | None = None
        self.head: Head | None = None
        self._keys = keys
        self._format: Format = FORMATS["jsonl"]
        self._place: _Place | None = None
        self._ended = False
        self._number = 0

    def take(self, number: int, line: bytes) -> None:
        """One line of the file."""
        self._number = number
        if number == 1 and not line.startswith(b"{"):
            self._format = FORMATS["csv"]
            if line != self._format.title.encode():
                self._wrong("does not have the names of a statement's columns")
            return
        if self._ended:
            self._wrong("stands after the signed head")
            return
        try:
            row = self._read(line)
            self._check(row)
        except (NotALine, UnreadableForm) as error:
            self._wrong(f"is no line of a statement: {error}")

    def finish(self, number: int) -> None:
        """The file is over after line `number`."""
        self._number = number + 1
        if not self._ended:
            self._wrong("is missing: a statement ends with its signed head")

    def _read(self, line: bytes) -> StatementRow:
        if len(line) > MAX_LINE_BYTES:
            raise NotALine(f"it has more than {MAX_LINE_BYTES} bytes")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise NotALine("it is not UTF-8") from None
        found = self._format.fields(text)
        row = StatementRow(*(_text(found, name) for name in StatementRow._fields))
        if _PROOF.fullmatch(row.proof) is None:
            raise NotALine("its proof is not in lowercase hex")
        expected = self._format.write(row)
        if text != expected:
            self._compare(found, self._format.fields(expected))
        return row

    def _compare(self, found: object, expected: object) -> None:
        """Tells a reader's fields that say other than the canonical form."""
        assert isinstance(found, dict)
        assert isinstance(expected, dict)
        names = [*expected, *(name for name in found if name not in expected)]
        differing = [name for name in names if found.get(name) != expected.get(name)]
        for name in differing:
            shown, right = _shown(found.get(name)), _shown(expected.get(name))
            self._wrong(f"says {name} {shown}, and its canonical form {right}")
        if not differing:
            self._wrong("is not written as statements are: a character more, less or other")

    def _check(self, row: StatementRow) -> None:
        if row.type == STATEMENT:
            self._check_opening(row)
        elif self._place is None and self.opening is None:
            self._wrong("stands where a statement's first line belongs")
            self._resume(row)
        elif row.type == TRANSACTION:
            self._check_transaction(row)
        else:
            self._check_head(row)

    def _check_opening(self, row: StatementRow) -> None:
        if self._place is not None:
            self._wrong("is a first line, and not the first")
            return
        opening = self.opening = read_opening(row.canonical)
        self._place = _Place(opening.sequence, opening.balance_micros, opening.chain)
        if checksum(row.canonical) != row.proof:
            self._wrong("was changed: its proof is not that of its canonical form")
        if opening.start_ms > opening.end_ms:
            self._wrong("has a period that ends before it starts")
        if opening.sequence == _BEFORE_THE_FIRST and self._place != _genesis(opening.wallet_id):
            self._wrong("does not begin as a wallet's chain does")

    def _resume(self, row: StatementRow) -> None:
        """Goes on from a line whose predecessor is not known."""
        if row.type == HEAD:
            self._check_head(row)
            return
        found = read_transaction(row.canonical)
        self.transactions += 1
        self._place = _Place(found.sequence, found.balance_after_micros, bytes.fromhex(row.proof))

    def _check_transaction(self, row: StatementRow) -> None:
        place, opening = self._place, self.opening
        assert place is not None
        found = read_transaction(row.canonical)
        self.transactions += 1
        chain = sha256(place.chain + row.canonical.encode()).digest()
        if found.sequence != place.sequence + 1:
            self._wrong(f"is transaction {found.sequence}, and {place.sequence + 1} is due")
        if chain != bytes.fromhex(row.proof):
            self._wrong("was changed, or does not follow the line before: its chain is broken")
        if found.balance_after_micros != place.balance_micros + found.signed_micros:
            self._wrong("has a balance that is not the one before and what it moved")
        if opening and (found.wallet_id, found.user_id) != (opening.wallet_id, opening.user_id):
            self._wrong("is of another wallet")
        # Go on from what it says, so that one broken line is told once.
        self._place = _Place(found.sequence, found.balance_after_micros, bytes.fromhex(row.proof))

    def _check_head(self, row: StatementRow) -> None:
        self._ended = True
        head = self.head = read_head(row.canonical)
        place = self._place
        if place is not None and place.sequence != head.sequence:
            self._wrong(
                f"signs transaction {head.sequence}, and the line before is {place.sequence}"
            )
        elif place is not None and place != (head.sequence, head.balance_after_micros, head.chain):
            self._wrong("signs another chain or balance than the line before has")
        if self.opening is not None and self.opening.wallet_id != head.wallet_id:
            self._wrong("is signed for another wallet")
        if self._keys:
            self._check_signature(row, head)

    def _check_signature(self, row: StatementRow, head: Head) -> None:
        self.signature_checked = True
        key = self._keys.get(head.key_id)
        if key is None:
            known = ", ".join(self._keys)
            self._wrong(f"is signed with the key {_shown(head.key_id)}, and known is {known}")
            return
        try:
            key.verify(bytes.fromhex(row.proof), row.canonical.encode())
        except InvalidSignature:
            self._wrong("has a signature that is not the server's")

    def _wrong(self, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self._number, message))


def _genesis(wallet_id: str) -> _Place | None:
    """Where a chain begins; None for what is no wallet's id."""
    try:
        return _Place(_BEFORE_THE_FIRST, 0, sha256(bytes.fromhex(wallet_id)).digest())
    except ValueError:
        return None


def _text(fields: object, name: str) -> str:
    assert isinstance(fields, dict)
    value = fields.get(name)
    if not isinstance(value, str):
        raise NotALine(f"it has no {name}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
