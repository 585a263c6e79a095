"""Update masks: which fields of a message a caller changes, and the message changed so."""

from collections.abc import Collection, Sequence
from typing import Any

from google.protobuf.message import Message

from server.kernel.errors import DomainError, FieldViolation, Reason


def paths_of(asked: Sequence[str], given: Message, output_only: Collection[str]) -> tuple[str, ...]:
    """The paths to change: those asked for, or the fields that `given` has set.

    UPDATE_MASK_INVALID for a path that there is not or that no caller can set.
    """
    if not asked:
        return tuple(field.name for field, _ in given.ListFields() if field.name not in output_only)
    for path in asked:
        if path.split(".")[0] in output_only or not _exists(given.DESCRIPTOR, path):
            raise _invalid(path)
    return tuple(dict.fromkeys(asked))


def merge(target: Message, given: Message, paths: Sequence[str]) -> None:
    """Make `target` like `given` at each of the paths; what `given` has not set is unset."""
    for path in paths:
        name, _, rest = path.partition(".")
        if rest:
            merge(getattr(target, name), getattr(given, name), [rest])
            continue
        target.ClearField(name)
        part = type(given)()
        part.CopyFrom(given)
        for field, _ in given.ListFields():
            if field.name != name:
                part.ClearField(field.name)
        target.MergeFrom(part)


def _exists(descriptor: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    field = descriptor.fields_by_name.get(name)
    if field is None or not rest:
        return field is not None
    # Below a timestamp, a map or a list there is nothing to name.
    inside = field.message_type
    named = inside is not None and not field.is_repeated
    return named and not inside.full_name.startswith("google.") and _exists(inside, rest)


def _invalid(path: str) -> DomainError:
    message = f"update_mask: {path} is not a field that can be updated"
    violation = FieldViolation("update_mask", f"{path} cannot be updated")
    return DomainError(Reason.UPDATE_MASK_INVALID, message, {"path": path}, violations=[violation])
