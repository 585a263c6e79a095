"""A statement with anything altered, dropped, swapped or added fails, and its line is named."""

import csv
import io
import json
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st
from zaaz_client.statements import FORMATS, StatementRow, Verdict, verify
from zaaz_client.statements.verify import MAX_LINE_BYTES, MAX_PROBLEMS

from .statement_files import (
    CREDIT,
    NOW_MS,
    PUBLIC_KEY,
    USER,
    Book,
    Made,
    compact,
    plain_book,
    written,
)

FORMAT = pytest.mark.parametrize("format_name", list(FORMATS))
formats = st.sampled_from(list(FORMATS))
texts = st.text(max_size=8) | st.sampled_from(["=1+1", '"', "a\nb", "a,b", "\r", "\x85", "'"])
transactions = st.builds(
    Made,
    signed_micros=st.integers(-(10**12), 10**12),
    reason=texts,
    ai_model=st.just("") | texts,
    held_change_micros=st.none() | st.integers(-9, 9),
)
books = st.builds(
    Book,
    st.lists(transactions, max_size=5),
    opening_sequence=st.integers(1, 10**6),
    opening_balance_micros=st.integers(-(10**12), 10**12),
)


def check(lines: list[bytes]) -> Verdict:
    """As a file is read: the bytes decide where a line ends."""
    return verify(io.BytesIO(b"".join(lines)), [PUBLIC_KEY])


def first_wrong_line(lines: list[bytes]) -> int:
    verdict = check(lines)
    assert not verdict.good
    return verdict.problems[0].line


def line_of(lines: list[bytes], place: int) -> int:
    """The number of the line that a byte of the file stands in."""
    return b"".join(lines)[:place].count(b"\n") + 1


class TestGood:
    @FORMAT
    def test_a_statement_from_the_start(self, format_name: str) -> None:
        verdict = check(plain_book(9).lines(format_name))
        assert verdict.good, verdict.problems
        assert verdict.transactions == 9
        assert verdict.opening is not None
        assert verdict.opening.user_id == USER
        assert verdict.head is not None
        assert (verdict.head.sequence, verdict.head.signed_ms) == (9, NOW_MS)

    @FORMAT
    def test_one_from_the_middle(self, format_name: str) -> None:
        book = plain_book(3, opening_sequence=41, opening_balance_micros=-5)
        assert check(book.lines(format_name)).good

    @FORMAT
    def test_an_empty_one(self, format_name: str) -> None:
        assert check(plain_book(0).lines(format_name)).good
        assert check(plain_book(0, opening_sequence=7).lines(format_name)).good

    @given(books, formats)
    def test_any(self, book: Book, format_name: str) -> None:
        verdict = check(book.lines(format_name))
        assert verdict.good, verdict.problems

    def test_without_a_key_it_is_not_called_good(self) -> None:
        verdict = verify(plain_book().lines("csv"))
        assert not verdict.problems
        assert not verdict.signature_checked
        assert not verdict.good


class TestTampered:
    @given(books, formats, st.data())
    def test_an_altered_byte(self, book: Book, format_name: str, data: st.DataObject) -> None:
        lines = book.lines(format_name)
        whole = bytearray(b"".join(lines))
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= data.draw(st.integers(1, 255))
        assert first_wrong_line([bytes(whole)]) == line_of(lines, place)

    @FORMAT
    def test_every_byte_of_one_file(self, format_name: str) -> None:
        """Each in a way that leaves most text readable: a digit, a letter, another case."""
        lines = plain_book(2).lines(format_name)
        whole = b"".join(lines)
        for place in range(len(whole)):
            for flip in (1, 0x20):
                altered = bytearray(whole)
                altered[place] ^= flip
                assert first_wrong_line([bytes(altered)]) == line_of(lines, place), place

    @given(books, formats, st.data())
    def test_a_dropped_line(self, book: Book, format_name: str, data: st.DataObject) -> None:
        lines = book.lines(format_name)
        place = data.draw(st.integers(0, len(lines) - 1))
        del lines[place]
        assert first_wrong_line(lines) == place + 1

    @FORMAT
    def test_says_which_transaction_is_missing(self, format_name: str) -> None:
        lines = plain_book().lines(format_name)
        del lines[-4]
        problem = check(lines).problems[0]
        assert problem.message == "is transaction 4, and 3 is due"

    @given(books, formats, st.data())
    def test_two_swapped_lines(self, book: Book, format_name: str, data: st.DataObject) -> None:
        lines = book.lines(format_name)
        places = st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True)
        one, other = data.draw(places)
        lines[one], lines[other] = lines[other], lines[one]
        assert first_wrong_line(lines) == min(one, other) + 1

    @given(books, formats, st.data())
    def test_a_line_twice(self, book: Book, format_name: str, data: st.DataObject) -> None:
        lines = book.lines(format_name)
        place = data.draw(st.integers(0, len(lines) - 1))
        lines.insert(place, lines[place])
        assert first_wrong_line(lines) == place + 2

    @FORMAT
    @pytest.mark.parametrize("added", [b"\n", b" ", b"x"])
    def test_something_after_the_end(self, format_name: str, added: bytes) -> None:
        lines = plain_book().lines(format_name)
        assert first_wrong_line([*lines, added]) == len(lines) + 1

    @FORMAT
    def test_a_last_line_without_its_end(self, format_name: str) -> None:
        lines = plain_book().lines(format_name)
        assert first_wrong_line([*lines[:-1], lines[-1][:-1]]) == len(lines)

    @FORMAT
    def test_other_line_ends(self, format_name: str) -> None:
        lines = [line.replace(b"\n", b"\r\n") for line in plain_book().lines(format_name)]
        assert first_wrong_line(lines) == 1


class TestReadableFields:
    """What people read is held against the canonical form, which is left alone here."""

    def test_an_altered_amount_of_a_table(self) -> None:
        lines = plain_book().lines("csv")
        lines[2] = lines[2].replace(b"7.000000", b"8.000000", 1)
        (problem,) = check(lines).problems
        assert problem.line == 3
        assert "credits '8.000000'" in problem.message
        assert "'7.000000'" in problem.message

    def test_an_altered_amount_of_json_lines(self) -> None:
        lines = plain_book().lines("jsonl")
        altered = {**json.loads(lines[1]), "credits_micros": 8 * CREDIT}
        lines[1] = (compact_object(altered) + "\n").encode()
        (problem,) = check(lines).problems
        assert problem.line == 2
        assert "says credits_micros 8000000, and its canonical form 7000000" in problem.message

    @pytest.mark.parametrize("where", [0, 1, 2, -1])
    def test_any_altered_field_of_any_line(self, where: int) -> None:
        lines = plain_book().lines("jsonl")
        line = json.loads(lines[where])
        for name, value in line.items():
            other = value + 1 if isinstance(value, int) else f"{value}0"
            altered = (compact_object({**line, name: other}) + "\n").encode()
            tampered = list(lines)
            tampered[where] = altered
            assert first_wrong_line(tampered) == lines.index(lines[where]) + 1, name

    def test_an_added_field(self) -> None:
        lines = plain_book().lines("jsonl")
        altered = {**json.loads(lines[1]), "note": "paid"}
        lines[1] = (compact_object(altered) + "\n").encode()
        assert first_wrong_line(lines) == 2

    def test_the_same_fields_written_otherwise(self) -> None:
        lines = plain_book().lines("jsonl")
        lines[1] = (json.dumps(json.loads(lines[1]), ensure_ascii=False) + "\n").encode()
        (problem,) = check(lines).problems
        assert problem.line == 2
        assert "not written" in problem.message


class TestForged:
    """By someone who knows the rules and has no key."""

    @FORMAT
    def test_a_transaction_rewritten_with_all_after_it(self, format_name: str) -> None:
        forged = Book([Made(8 * CREDIT), Made(-5)])
        original = Book([Made(7 * CREDIT), Made(-5)])
        rows = [*forged.rows[:-1], original.rows[-1]]
        lines = written(rows, format_name)
        verdict = check(lines)
        assert [problem.line for problem in verdict.problems] == [len(lines)]
        assert "another chain" in verdict.problems[0].message

    @FORMAT
    def test_a_head_without_a_signature_of_its_own(self, format_name: str) -> None:
        forged, original = Book([Made(8 * CREDIT)]), Book([Made(7 * CREDIT)])
        head = forged.rows[-1]._replace(proof=original.rows[-1].proof)
        lines = written([*forged.rows[:-1], head], format_name)
        verdict = check(lines)
        assert [problem.line for problem in verdict.problems] == [len(lines)]
        assert "signature" in verdict.problems[0].message
        assert verdict.signature_checked

    def test_a_signature_of_another_key(self) -> None:
        stranger = Ed25519PrivateKey.generate()
        lines = Book([Made(5)], key=stranger).lines("jsonl")
        verdict = check(lines)
        assert [problem.line for problem in verdict.problems] == [3]
        assert "is signed with the key" in verdict.problems[0].message
        assert verify(lines, [PUBLIC_KEY, stranger.public_key().public_bytes_raw()]).good

    def test_a_signature_of_another_key_under_the_servers_name(self) -> None:
        head = Book([Made(5)]).rows[-1]
        signature = Ed25519PrivateKey.generate().sign(head.canonical.encode()).hex()
        rows = [*Book([Made(5)]).rows[:-1], head._replace(proof=signature)]
        (problem,) = check(written(rows, "csv")).problems
        assert (problem.line, "signature" in problem.message) == (4, True)

    def test_anothers_transactions(self) -> None:
        rows = list(Book([Made(5)]).rows)
        opening = json.loads(rows[0].canonical)
        opening[1] = "0" * 24
        form = compact(opening)
        rows[0] = resealed(form)
        verdict = check(written(rows, "jsonl"))
        assert [problem.line for problem in verdict.problems] == [2]
        assert "another wallet" in verdict.problems[0].message

    def test_a_beginning_that_is_none(self) -> None:
        rows = list(Book([]).rows)
        opening = json.loads(rows[0].canonical)
        opening[6] = 5
        rows[0] = resealed(compact(opening))
        assert first_wrong_line(written(rows, "jsonl")) == 1

    def test_a_balance_that_does_not_add_up(self) -> None:
        """Chained and signed: only a broken server would."""
        book = Book([Made(5), Made(6)])
        form = json.loads(book.rows[2].canonical)
        form[9] += 1
        row = book.rows[2]._replace(canonical=compact(form))
        verdict = check(written([*book.rows[:2], row, book.rows[3]], "jsonl"))
        assert any("balance" in p.message and p.line == 3 for p in verdict.problems)


class TestNonsense:
    @given(st.binary(max_size=200))
    @example(b"")
    @example(b"{" * 100_000)
    @example(b"\0")
    def test_any_bytes(self, content: bytes) -> None:
        assert first_wrong_line([content]) == 1

    @given(
        st.sampled_from(["statement", "transaction", "head", "x"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=3) | st.floats(),
            lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner),
        ),
        st.data(),
    )
    def test_any_form(self, kind: str, value: Any, data: st.DataObject) -> None:
        """In a line that is JSON throughout, in place of any value of a good one's form."""
        book = plain_book(2)
        row = book.rows[data.draw(st.integers(0, 3))]
        form = json.loads(row.canonical)
        form[data.draw(st.integers(0, len(form) - 1))] = value
        line = {"type": kind, "canonical": json.dumps(form), "proof": row.proof}
        assert first_wrong_line([(json.dumps(line) + "\n").encode()]) == 1

    def test_a_line_beyond_all_bounds(self) -> None:
        lines = plain_book().lines("csv")
        lines[3] = b"x" * (MAX_LINE_BYTES + 1) + b"\n"
        problem = check(lines).problems[0]
        assert (problem.line, str(MAX_LINE_BYTES) in problem.message) == (4, True)

    def test_no_more_problems_are_told_than_the_bound(self) -> None:
        lines = [plain_book().lines("jsonl")[0], *([b"x\n"] * 3 * MAX_PROBLEMS)]
        assert len(check(lines).problems) == MAX_PROBLEMS

    def test_a_key_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="32"):
            verify([], [b"short"])


class TestFormats:
    def test_a_table_is_one_for_every_reader_of_csv(self) -> None:
        text = b"".join(plain_book(9).lines("csv")).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["type"] for row in rows] == ["statement", *["transaction"] * 9, "head"]
        assert rows[1]["credits"] == "7.000000"
        assert rows[2]["credits"] == "-1.000001"
        assert rows[2]["ai_model"] == "openai/gpt-4o-mini"
        assert rows[3]["held_change"] == "0.000005"
        balance = sum(round(float(row["credits"]) * CREDIT) for row in rows[1:-1])
        assert rows[-1]["balance_after"] == f"{balance / CREDIT:.6f}"

    @given(books)
    def test_no_cell_of_a_table_is_a_formula_or_ends_a_line(self, book: Book) -> None:
        for row in csv.reader(line.decode().removesuffix("\n") for line in book.lines("csv")):
            for cell in row[:-1]:
                assert not cell.startswith(("=", "+", "@"))
                assert not cell.startswith("-") or float(cell) < 0
                assert cell.isprintable() or not set(cell) & set("\r\n\t\x85\u2028\u2029")

    @given(books, formats)
    def test_what_is_written_is_read(self, book: Book, format_name: str) -> None:
        format_ = FORMATS[format_name]
        for row in book.rows:
            fields = format_.fields(format_.write(row))
            assert StatementRow(*(fields[name] for name in StatementRow._fields)) == row


def compact_object(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def resealed(form: str) -> StatementRow:
    """A first line with a proof to match."""
    return StatementRow("statement", form, sha256(form.encode()).hexdigest())
