"""Statements as files: written from the server, and verified without it.

    with open("statement.csv", "rb") as file:
        verdict = verify(file, [public_key])
    for problem in verdict.problems:
        print(problem.line, problem.message)

A statement is lines. The first says whose it is, of which period, and where the
chain stood before it; then comes a line for each transaction; the last is the
server's signature on where the chain stands after them. Every line has a
`canonical` form, from which its readable fields follow, and a `proof`: of the
first, the SHA-256 of its form; of a transaction, its link of the chain; of the
last, the signature.
"""

from zaaz_client.statements.formats import FORMATS, CsvFormat, Format, JsonLinesFormat
from zaaz_client.statements.rows import StatementRow, head_row, opening_row, transaction_row
from zaaz_client.statements.verify import Problem, Verdict, key_id, verify

__all__ = [
    "FORMATS",
    "CsvFormat",
    "Format",
    "JsonLinesFormat",
    "Problem",
    "StatementRow",
    "Verdict",
    "head_row",
    "key_id",
    "opening_row",
    "transaction_row",
    "verify",
]
