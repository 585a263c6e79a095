"""Single values of a file: text to what the contract holds, and back. No float anywhere.

Everything that reads raises ValueError saying what would be right.
"""

import re
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from zaaz_client.catalog_files.problems import unknown

AMOUNT_DECIMALS: Final = 6
"""Credits and money are kept in micro-units."""

PERCENT_DECIMALS: Final = 4
"""Parts are kept in millionths."""

_DECIMAL: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_INTEGER: Final = re.compile(r"-?[0-9]+")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MAX_DIGITS: Final = 20
_UNSPECIFIED: Final = "UNSPECIFIED"


def read_decimal(text: str, decimals: int) -> int:
    """The number in units of its last decimal: exactly."""
    match = _DECIMAL.fullmatch(text)
    if match is None or len(match[2]) > _MAX_DIGITS:
        raise ValueError(f"{text!r} is no number like 9.99")
    sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
    if len(fraction) > decimals:
        raise ValueError(f"{text!r} has more than {decimals} decimals")
    return int(sign + whole + fraction.ljust(decimals, "0"))


def write_decimal(units: int, decimals: int) -> str:
    """The shortest text of the number."""
    whole, fraction = divmod(abs(units), 10**decimals)
    text = f"{whole}.{fraction:0{decimals}d}".rstrip("0").rstrip(".")
    return f"-{text}" if units < 0 else text


def read_integer(text: str) -> int:
    """A whole number."""
    if _INTEGER.fullmatch(text) is None or len(text) > _MAX_DIGITS:
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def read_boolean(text: str) -> bool:
    """True or false."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def read_time(text: str) -> Timestamp:
    """A day, or a time with its zone."""
    moment = Timestamp()
    try:
        moment.FromJsonString(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
    except ValueError:
        problem = f"{text!r} is no time like 2027-01-31 or 2027-01-31T12:00:00Z"
        raise ValueError(problem) from None
    return moment


def write_time(moment: Timestamp) -> str:
    """The time in UTC; a day alone where it begins."""
    return moment.ToJsonString().removesuffix("T00:00:00Z")


def read_enum(text: str, enum: EnumDescriptor) -> int:
    """The value called so, without its enum's prefix: single-time."""
    numbers = _names(enum)
    name = text.lower().replace("_", "-")
    if name not in numbers:
        raise ValueError(unknown("value", text, numbers))
    return numbers[name]


def write_enum(number: int, enum: EnumDescriptor) -> str:
    """What a value is called, its number if this client does not know it."""
    names = {known: name for name, known in _names(enum).items()}
    return names.get(number, str(number))


def _names(enum: Any) -> dict[str, int]:
    prefix = enum.values_by_number[0].name.removesuffix(_UNSPECIFIED)
    return {
        value.name.removeprefix(prefix).lower().replace("_", "-"): value.number
        for value in enum.values
        if value.number
    }
