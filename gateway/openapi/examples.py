"""Examples that keep the contract's rules, for whoever tries a method out.

A text is one of WORDS that its field's rules let through; a field for which there
is none stays out. Tests hold every example against the rules.
"""

import re
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from gateway.openapi.comments import Comments
from gateway.openapi.known import SCALARS
from gateway.openapi.rules import constraints, rules_of
from gateway.openapi.schemas import OUTPUT_ONLY, map_entry
from gateway.values import WRAPPERS

MAX_DEPTH: Final = 5
"""Messages in messages go no deeper in an example."""

WORDS: Final = (
    "chat",
    "65f0c0ffee65f0c0ffee65f0",
    "order-4711",
    "openai/gpt-4o-mini",
    "user@zaaz.example",
    "https://zaaz.example/",
    "2026-01-31",
    "USD",
    "en",
    "10.0.0.1",
    "123e4567-e89b-12d3-a456-426614174000",
    "+491701234567",
    "#1a2b3c",
    "1",
    "A1B2C3",
)

_NAMED: Final = {
    "ai_model": "openai/gpt-4o-mini",
    "filter": 'created_time >= "2026-01-31T00:00:00Z"',
    "order_by": "created_time desc",
    "currency": "USD",
    "method": "zaaz.wallet.v1.WalletService/WatchWallet",
    "reason": "Welcome bonus",
}
_FUTURE: Final = frozenset({"expires_time"})
_LATER: Final = "2099-01-31T00:00:00Z"
_KNOWN: Final[dict[str, Any]] = {
    "google.protobuf.Timestamp": "2026-01-31T00:00:00Z",
    "google.protobuf.Duration": "60s",
    "google.protobuf.Struct": {},
    "google.protobuf.Empty": {},
}
_NAMED_STRUCTS: Final = {"request": {"user_id": "65f0c0ffee65f0c0ffee65f0"}}
_SKIPPED: Final = frozenset({"page_token", "filter", "order_by", "resume_token", "etag"})
"""Nobody makes these up."""
_OWN_ID: Final = "id"
"""Without rules it is the server's to give."""


class NoExampleError(Exception):
    """There is no example."""


class Examples:
    """Makes examples of messages that callers send."""

    def __init__(self, comments: Comments) -> None:
        self._comments = comments

    def patch(self, message: Descriptor, without: set[str]) -> dict[str, Any]:
        """An example of what may be changed: fields without a rule are the server's own."""
        ruled = {field.name for field in message.fields if rules_of(field).ByteSize()}
        rest = {field.name for field in message.fields} - ruled
        return self.message(message, without | rest)

    def message(self, message: Descriptor, without: set[str], depth: int = 0) -> dict[str, Any]:
        """An example of `message` less some fields."""
        made: dict[str, Any] = {}
        chosen: set[str] = set()
        for field in message.fields:
            group = field.containing_oneof
            if field.name in without | _SKIPPED or self._is_output(field):
                continue
            if group is not None and group.name in chosen:
                continue
            if field.name == _OWN_ID and not rules_of(field).ByteSize():
                continue
            try:
                made[field.name] = self._field(field, depth)
            except NoExampleError:
                continue
            if group is not None:
                chosen.add(group.name)
        return made

    def _is_output(self, field: FieldDescriptor) -> bool:
        return self._comments.of(field.full_name).startswith(OUTPUT_ONLY)

    def _field(self, field: FieldDescriptor, depth: int) -> Any:
        rules = rules_of(field)
        entry = map_entry(field)
        if entry is not None:
            key = _text("", constraints(rules.map.keys))
            return {key: self._one(entry.fields_by_name["value"], rules.map.values, depth)}
        if field.is_repeated:
            return [self._one(field, rules.repeated.items, depth)]
        return self._one(field, rules, depth)

    def _one(self, field: FieldDescriptor, rules: Any, depth: int) -> Any:
        if field.name in _FUTURE:
            return _LATER
        if field.name in _NAMED_STRUCTS and field.message_type is not None:
            return _NAMED_STRUCTS[field.name]
        if field.message_type is not None:
            return self._message_value(field.message_type, depth)
        if field.enum_type is not None:
            return _enum(field.enum_type, rules)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return True
        if field.type == FieldDescriptor.TYPE_STRING:
            return _text(field.name, constraints(rules))
        if field.type == FieldDescriptor.TYPE_BYTES:
            return "emFheg=="
        return _number(field, rules)

    def _message_value(self, message: Descriptor, depth: int) -> Any:
        name = message.full_name
        if name in _KNOWN:
            return _KNOWN[name]
        if depth >= MAX_DEPTH or name.startswith("google.") or name in WRAPPERS:
            raise NoExampleError
        return self.message(message, set(), depth + 1)


def _text(name: str, rules: dict[str, Any]) -> str:
    if "const" in rules or "enum" in rules:
        return str(rules.get("const") or next(filter(None, rules["enum"])))
    words: tuple[str, ...] = (_NAMED[name], *WORDS) if name in _NAMED else WORDS
    for word in words:
        if _passes(word, rules):
            return word
    raise NoExampleError


def _passes(word: str, rules: dict[str, Any]) -> bool:
    if "x-re2-pattern" in rules:
        return False
    if not rules.get("minLength", 0) <= len(word) <= rules.get("maxLength", len(word)):
        return False
    if rules.get("format") == "email":
        return "@" in word
    if rules.get("format") == "uri":
        return "://" in word
    return "format" not in rules and re.search(rules.get("pattern", ""), word) is not None


def _enum(enum: EnumDescriptor, rules: Any) -> str:
    inner = rules.enum
    allowed = list(getattr(inner, "in")) or [value.number for value in enum.values]
    fitting = [number for number in allowed if number and number not in inner.not_in]
    return str(enum.values_by_number[(fitting or allowed)[0]].name)


def _number(field: FieldDescriptor, rules: Any) -> int | float | str:
    kind = rules.WhichOneof("type")
    inner = getattr(rules, kind) if kind else None
    value = 1
    if inner is not None:
        value = max(value, getattr(inner, "gte", 0), getattr(inner, "gt", 0) + 1)
        allowed = getattr(inner, "in")
        value = allowed[0] if allowed else value
        if (inner.HasField("lte") and value > inner.lte) or (
            inner.HasField("lt") and value >= inner.lt
        ):
            raise NoExampleError
    return str(value) if SCALARS[field.type]["type"] == "string" else value
