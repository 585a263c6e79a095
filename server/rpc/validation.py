"""The contract's own rules (protovalidate), behind one function.

protovalidate 2 is new: nothing else in the house imports it.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import protovalidate
from google.protobuf.message import Message

from server.kernel.errors import DomainError, FieldViolation, Reason
from server.kernel.ids import ID_DESCRIPTION

MAX_VIOLATIONS: Final = 100
"""More are not read: a thousand bad rows tell their sender no more than a hundred."""

_TEXT_IDS: Final = frozenset({"request_id", "client_id", "writer_id"})
"""Fields that end in _id and are the caller's own text, not ObjectIds."""

_PATTERN = "string.pattern"


@cache
def _validator() -> protovalidate.Validator:
    """One per process: it keeps the compiled rules of every message type that it has seen."""
    return protovalidate.Validator()


def warm(messages: Iterable[Message]) -> None:
    """Compile the rules of these messages' types now rather than in a caller's first call."""
    for message in messages:
        _validator().collect_violations(message)


def violations(message: Message) -> list[FieldViolation]:
    """Every broken rule of `message`, at most MAX_VIOLATIONS."""
    return [violation for violation, _ in _collect(message)]


def check(message: Message, within: str = "") -> None:
    """Raise FIELD_INVALID naming every field, or MALFORMED_ID when only ids are wrong.

    `within` is said before each field: the request's path of a message that is checked by itself.
    """
    try:
        _validator().validate(message)
    except protovalidate.ValidationError:
        raise _refusal(message, within) from None


def _refusal(message: Message, within: str) -> DomainError:
    found = [
        (FieldViolation(within + one.field, one.description), is_id)
        for one, is_id in _collect(message)
    ]
    first = found[0][0]
    reason = Reason.MALFORMED_ID if all(is_id for _, is_id in found) else Reason.FIELD_INVALID
    return DomainError(
        reason,
        f"{first.field}: {first.description}",
        {"field": first.field},
        violations=[violation for violation, _ in found],
    )


def _collect(message: Message) -> list[tuple[FieldViolation, bool]]:
    found = _validator().collect_violations(message)[:MAX_VIOLATIONS]
    return [_read(violation.proto) for violation in found]


def _read(violation: Any) -> tuple[FieldViolation, bool]:
    """A violation, and whether it is a malformed ObjectId."""
    elements = violation.field.elements if violation.field is not None else ()
    path = ".".join(_element(element) for element in elements)
    name = elements[-1].field_name if elements else ""
    is_id = violation.rule_id == _PATTERN and _names_object_id(name)
    description = ID_DESCRIPTION if is_id else violation.message or violation.rule_id
    return FieldViolation(path or "(message)", description), is_id


def _names_object_id(name: str) -> bool:
    return (name in {"id", "ids"} or name.endswith(("_id", "_ids"))) and name not in _TEXT_IDS


def _element(element: Any) -> str:
    subscript = element.subscript
    if subscript is None:
        return str(element.field_name)
    if subscript.field == "index":
        return f"{element.field_name}[{subscript.value}]"
    return f'{element.field_name}["{subscript.value}"]'
