"""HTTP's entity tags over the contract's etags.

The etag of a resource guards its updates, and may well stay while other parts of
it change (a wallet's does when its balance moves). HTTP's tag stands for the very
bytes of an answer. So the header is both: `"<etag>:<hash of the body>"`. If-Match
goes by the first part, If-None-Match by the whole.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.refusals import field_invalid

FIELD: Final = "etag"
_HASH_BYTES: Final = 8
_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')
_HASHED: Final = re.compile(r"(.*):[0-9a-f]{16}")


def has_etag(message: Descriptor | None) -> bool:
    """Whether a message has an etag of its own."""
    field = message.fields_by_name.get(FIELD) if message is not None else None
    return field is not None and field.type == FieldDescriptor.TYPE_STRING


def etag_of(response: Descriptor) -> Callable[[Any], str] | None:
    """What reads the etag of a response, or of the one resource that it holds."""
    if has_etag(response):
        return lambda message: str(message.etag)
    messages = [field for field in response.fields if field.message_type is not None]
    if len(messages) == 1 and not messages[0].is_repeated and has_etag(messages[0].message_type):
        name = messages[0].name
        return lambda message: str(getattr(message, name).etag)
    return None


def entity_tag(etag: str, body: bytes) -> str:
    """The header for an answer with this body; "" where the resource's etag cannot be in one."""
    tag = f'"{etag}:{hashlib.blake2b(body, digest_size=_HASH_BYTES).hexdigest()}"'
    return tag if etag and _TAG.fullmatch(tag) else ""


def wanted(if_match: str) -> str:
    """The etag that If-Match asks for; "" for any. A Refusal if it asks for several.

    A weak tag is taken too: proxies weaken what they compress, and the part that
    is compared has nothing to do with the bytes.
    """
    if if_match.strip() == "*":
        return ""
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        raise field_invalid("if-match", 'must be one entity tag in quotes, as in "7", or *')
    hashed = _HASHED.fullmatch(found.group(1))
    return hashed.group(1) if hashed else found.group(1)


def matches(if_none_match: str, tag: str) -> bool:
    """Whether the client has these bytes already."""
    return if_none_match.strip() == "*" or tag[1:-1] in _TAG.findall(if_none_match)
