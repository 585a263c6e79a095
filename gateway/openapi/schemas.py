"""Messages and enums of the contract as components of an OpenAPI document."""

from collections.abc import Iterable
from typing import Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from gateway.openapi.comments import Comments
from gateway.openapi.known import KNOWN, SCALARS
from gateway.openapi.rules import Json, constraints, refuses_zero, rules_of
from gateway.values import WRAPPERS

SENT: Final = "Sent"

OUTPUT_ONLY: Final = "Output only"
"""How the comment of a field begins that the server alone sets."""


class Schemas:
    """Components, made when they are first referred to.

    What is sent and what is answered differ where a message is both: a sender is
    held to its rules and may name no other field; an answer always has the fields
    without presence, and may have more with time. So such a message has two
    schemas, of which the sender's is called after it with SENT.
    """

    def __init__(self, comments: Comments, methods: Iterable[MethodDescriptor]) -> None:
        self.components: dict[str, Json] = {}
        self._comments = comments
        self._answered = reachable(method.output_type for method in methods)

    def message(self, message: Descriptor, *, is_sent: bool = False) -> Json:
        """A reference to the schema of `message`, or that schema if it has a JSON of its own."""
        name = message.full_name
        if name in KNOWN:
            return dict(KNOWN[name])
        if name in WRAPPERS:
            return dict(SCALARS[message.fields_by_name["value"].type])
        key = component_name(name) + (SENT if is_sent and name in self._answered else "")
        if key not in self.components:
            # Known before its fields are: a message may hold messages of its own type.
            self.components[key] = {}
            self.components[key] = self._sent(message) if is_sent else self._object(message)
        return reference(key)

    def field(self, field: FieldDescriptor, *, is_sent: bool = False) -> Json:
        """The schema of a field with its rules and its comment."""
        rules = rules_of(field)
        entry = map_entry(field)
        if entry is not None:
            value = entry.fields_by_name["value"]
            inner = self.one(value, is_sent=is_sent)
            inner |= constraints(rules.map.values, is_sent=is_sent)
            schema: Json = {"type": "object", "additionalProperties": inner}
        elif field.is_repeated:
            inner = self.one(field, is_sent=is_sent)
            inner |= constraints(rules.repeated.items, is_sent=is_sent)
            schema = {"type": "array", "items": inner}
        else:
            schema = self.one(field, is_sent=is_sent)
        schema |= constraints(rules, is_sent=is_sent)
        if field.enum_type is not None and not field.is_repeated:
            schema = narrowed(schema, field.enum_type, rules)
        return self._told(schema, field)

    def one(self, field: FieldDescriptor, *, is_sent: bool = False) -> Json:
        """The schema of one value of a field, by its type alone."""
        if field.message_type is not None:
            return self.message(field.message_type, is_sent=is_sent)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        return dict(SCALARS[field.type])

    def body(self, name: str, message: Descriptor, without: set[str], *, is_patch: bool) -> Json:
        """A reference to `message` as a request's body: less what stands elsewhere.

        A patch names only what is to change, so that nothing of it is required.
        """
        schema = self._sent(message)
        for field in without:
            schema["properties"].pop(field, None)
        required = [field for field in schema.pop("required", ()) if field not in without]
        if required and not is_patch:
            schema["required"] = required
        self.components[name] = schema
        return reference(name)

    def _sent(self, message: Descriptor) -> Json:
        properties = {field.name: self.field(field, is_sent=True) for field in message.fields}
        required = [field.name for field in message.fields if must_be_set(field)]
        schema = self._described(message, properties, required)
        return schema | {"additionalProperties": False}

    def _object(self, message: Descriptor) -> Json:
        properties = {field.name: self.field(field) for field in message.fields}
        always = [field.name for field in message.fields if not field.has_presence]
        return self._described(message, properties, always)

    def _described(self, message: Descriptor, properties: Json, required: list[str]) -> Json:
        comment = self._comments.of(message.full_name)
        schema: Json = {"description": comment} if comment else {}
        schema |= {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        choices = [_choice(each.fields) for each in message.oneofs if not _is_synthetic(each)]
        if choices:
            schema["allOf"] = choices
        return schema

    def _told(self, schema: Json, field: FieldDescriptor) -> Json:
        comment = self._comments.of(field.full_name)
        if not comment:
            return schema
        is_output = comment.startswith(OUTPUT_ONLY)
        return schema | {"description": comment} | ({"readOnly": True} if is_output else {})

    def _enum(self, enum: EnumDescriptor) -> Json:
        key = component_name(enum.full_name)
        if key not in self.components:
            names = [value.name for value in enum.values]
            schema: Json = {"type": "string", "enum": names}
            lines = [self._comments.of(enum.full_name)]
            lines += [self._value_line(enum, name) for name in names]
            self.components[key] = schema | {"description": "\n".join(filter(None, lines))}
        return reference(key)

    def _value_line(self, enum: EnumDescriptor, name: str) -> str:
        comment = self._comments.of(f"{enum.full_name}.{name}")
        return f"- `{name}`: {comment}" if comment else f"- `{name}`"


def must_be_set(field: FieldDescriptor) -> bool:
    """Whether a sender may not leave a field out."""
    rules = rules_of(field)
    return bool(rules.required) or (not field.has_presence and refuses_zero(rules))


def component_name(full_name: str) -> str:
    """`zaaz.ledger.v1.Wallet` as `ledger.Wallet`; other packages keep their names."""
    package, _, rest = full_name.removeprefix("zaaz.").partition(".v1.")
    return f"{package}.{rest}" if rest and full_name.startswith("zaaz.") else full_name


def reference(component: str) -> Json:
    """A reference to a schema."""
    return {"$ref": f"#/components/schemas/{component}"}


def reachable(roots: Iterable[Descriptor]) -> set[str]:
    """The full names of messages in `roots` and in their fields, however deep."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found.add(message.full_name)
            waiting += [kind for field in message.fields if (kind := field.message_type)]
    return found


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """The message that holds key and value of a map; None for another field."""
    kind = field.message_type
    return kind if kind is not None and kind.GetOptions().map_entry else None


def _is_synthetic(oneof: object) -> bool:
    """What the compiler makes of an `optional` field."""
    fields = oneof.fields  # type: ignore[attr-defined]
    return len(fields) == 1 and oneof.name == f"_{fields[0].name}"  # type: ignore[attr-defined]


def _choice(fields: Iterable[FieldDescriptor]) -> Json:
    """At most one of these."""
    one_of_them: list[Json] = [{"required": [field.name]} for field in fields]
    return {"oneOf": [*one_of_them, {"not": {"anyOf": one_of_them}}]}


def narrowed(schema: Json, enum: EnumDescriptor, rules: object) -> Json:
    """Only those values that the rules let through."""
    inner = rules.enum  # type: ignore[attr-defined]
    allowed, refused = list(getattr(inner, "in")), list(inner.not_in)
    if not allowed and not refused:
        return schema
    numbers = allowed or [value.number for value in enum.values if value.number not in refused]
    names = [enum.values_by_number[number].name for number in numbers]
    return {**schema, "enum": names}
