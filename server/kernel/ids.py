"""Ids: ObjectIds, 24 lowercase hex digits on the wire."""

from hashlib import blake2b

from bson import ObjectId
from bson.errors import InvalidId

from server.kernel.errors import DomainError, FieldViolation, Reason

ID_DESCRIPTION = "must be 24 lowercase hex digits"
"""What would have been right."""

_HEX_DIGITS = 24


def new_id() -> ObjectId:
    """A fresh id."""
    return ObjectId()


def parse_id(field: str, text: str) -> ObjectId:
    """`text` as an id; MALFORMED_ID naming `field` otherwise."""
    try:
        if len(text) == _HEX_DIGITS and text == text.lower():
            return ObjectId(text)
    except InvalidId:
        pass
    raise DomainError(
        Reason.MALFORMED_ID,
        f"{field}: {ID_DESCRIPTION}",
        {"field": field},
        violations=[FieldViolation(field, ID_DESCRIPTION)],
    )


def derived_id(*parts: str) -> ObjectId:
    """The same id for the same parts, for rows whose key is their identity.

    96 bits of BLAKE2b. Parts are joined by a zero byte, which none of the keys
    that come in here may contain.
    """
    return ObjectId(blake2b("\0".join(parts).encode(), digest_size=12).digest())
