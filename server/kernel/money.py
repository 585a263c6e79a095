"""Amounts: int64 micro-units. Nothing here knows a float."""

from server.kernel.errors import DomainError, Reason

MICROS = 1_000_000
"""Micro-credits in a credit, micro-units in a unit of money, parts in a whole (ppm)."""

MAX_MICROS = 2**63 - 1
"""The largest amount that the contract and the database can carry."""


def ceil_div(numerator: int, denominator: int) -> int:
    """numerator / denominator, rounded up. The denominator is positive."""
    return -(-numerator // denominator)


def in_range(field: str, amount: int) -> int:
    """`amount`, if it fits int64; AMOUNT_OUT_OF_RANGE naming `field` otherwise."""
    if -MAX_MICROS <= amount <= MAX_MICROS:
        return amount
    raise DomainError(
        Reason.AMOUNT_OUT_OF_RANGE,
        f"{field} would leave the range of int64",
        {"field": field},
    )
