"""protovalidate's rules as JSON Schema, as far as the one can say what the other means.

What cannot be said is left out: a schema never refuses what the server takes.
"""

import re
from typing import Any, Final

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor

from gateway.openapi.numerals import at_most

MAX_INT64: Final = 2**63 - 1

Json = dict[str, Any]
"""A JSON Schema, or a piece of one."""

INT64: Final = frozenset({"int64", "uint64", "sint64", "fixed64", "sfixed64"})
_NUMBERS: Final = INT64 | {
    "int32",
    "uint32",
    "sint32",
    "fixed32",
    "sfixed32",
    "float",
    "double",
}
_BOUNDS: Final = {
    "gt": "exclusiveMinimum",
    "gte": "minimum",
    "lt": "exclusiveMaximum",
    "lte": "maximum",
}
_FORMATS: Final = {
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
_RE2_ONLY: Final = re.compile(r"\\[AzQEpPCsS]|\(\?[A-Za-z-]*[:)]|\(\?P?<|\[\[:|\\x\{")
"""What RE2 reads and ECMAScript does not, or reads otherwise."""


def rules_of(field: FieldDescriptor) -> Any:
    """The FieldRules of a field that are checked at all; empty ones where there are none."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    if rules.ignore == validate_pb2.IGNORE_ALWAYS:
        return validate_pb2.FieldRules()
    return rules


def constraints(rules: Any, *, is_sent: bool = True) -> Json:
    """What `rules` say of one value (of a list or map: of the whole), as JSON Schema.

    They are a sender's: an answer has the zero value of what is not set as well, as a row in a
    document without ids.
    """
    kind = rules.WhichOneof("type")
    if kind is None:
        return {}
    inner = getattr(rules, kind)
    skips_zero = rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE or not is_sent
    if kind == "string":
        return _of_string(inner, skips_zero=skips_zero)
    if kind in _NUMBERS:
        return _of_number(inner, is_text=kind in INT64, skips_zero=skips_zero)
    if kind == "repeated":
        return _sizes(inner, "min_items", "minItems", "max_items", "maxItems") | (
            {"uniqueItems": True} if inner.unique else {}
        )
    if kind == "map":
        return _of_map(inner)
    return {}


def refuses_zero(rules: Any) -> bool:
    """Whether a field without presence has to be set, since its zero value breaks a rule."""
    if rules.required:
        return True
    kind = rules.WhichOneof("type")
    if kind is None or rules.ignore != validate_pb2.IGNORE_UNSPECIFIED:
        return False
    inner = getattr(rules, kind)
    if kind == "string":
        return _refuses_empty(inner)
    if kind in _NUMBERS or kind == "enum":
        return _refuses_number_zero(inner)
    if kind == "repeated":
        return bool(inner.min_items)
    if kind == "map":
        return bool(inner.min_pairs)
    return False


def pattern_of(re2: str) -> str:
    """The same pattern for ECMAScript; "" where there may be none."""
    text = re2.replace(r"\z", "$").replace(r"\A", "^").replace("(?P<", "(?<")
    return "" if _RE2_ONLY.search(text.replace("(?<", "(")) else text


def _of_string(rules: Any, *, skips_zero: bool) -> Json:
    made = _sizes(rules, "min_len", "minLength", "max_len", "maxLength")
    if rules.HasField("len"):
        made |= {"minLength": rules.len, "maxLength": rules.len}
    if rules.HasField("const"):
        made["const"] = rules.const
    allowed = list(getattr(rules, "in"))
    if allowed:
        made["enum"] = [*([""] if skips_zero else []), *allowed]
    pattern = pattern_of(rules.pattern)
    if pattern:
        made["pattern"] = f"^$|{pattern}" if skips_zero else pattern
    elif rules.pattern:
        made["x-re2-pattern"] = rules.pattern
    known = rules.WhichOneof("well_known")
    if known in _FORMATS:  # which refuses nothing: it only says what is meant
        made["format"] = _FORMATS[known]
    if skips_zero:
        made.pop("minLength", None)
        made.pop("const", None)
    return made


def _of_number(rules: Any, *, is_text: bool, skips_zero: bool) -> Json:
    made: Json = {}
    for name, keyword in _BOUNDS.items():
        if rules.HasField(name):
            made[keyword] = getattr(rules, name)
    if skips_zero and _refuses_number_zero(rules):
        return {}
    allowed = list(getattr(rules, "in"))
    if rules.HasField("const"):
        allowed = [rules.const]
    if allowed:
        made["enum"] = allowed
    return _as_text(made) if is_text else made


def _as_text(bounds: Json) -> Json:
    """Of an int64, which is a string: its sign by a pattern, its bounds for the reader."""
    made: Json = {f"x-{keyword}": str(bounds[keyword]) for keyword in bounds if keyword != "enum"}
    if "enum" in bounds:
        made["enum"] = [str(value) for value in bounds["enum"]]
    low = bounds.get("minimum", bounds.get("exclusiveMinimum", -1) + 1)
    high = bounds.get("maximum", bounds.get("exclusiveMaximum", MAX_INT64 + 1) - 1)
    if {"minimum", "exclusiveMinimum"} & bounds.keys() and low in (0, 1) and high > 0:
        digits = at_most(high) if high < MAX_INT64 else "[1-9][0-9]{0,18}"
        made["pattern"] = f"^({digits})$" if low else f"^(0|{digits})$"
    return made


def _of_map(rules: Any) -> Json:
    made = _sizes(rules, "min_pairs", "minProperties", "max_pairs", "maxProperties")
    keys = constraints(rules.keys)
    return made | ({"propertyNames": keys} if keys else {})


def _sizes(rules: Any, low: str, low_keyword: str, high: str, high_keyword: str) -> Json:
    made: Json = {}
    if getattr(rules, low):
        made[low_keyword] = getattr(rules, low)
    if rules.HasField(high):
        made[high_keyword] = getattr(rules, high)
    return made


def _refuses_empty(rules: Any) -> bool:
    if rules.min_len or rules.len or rules.min_bytes or rules.len_bytes:
        return True
    if rules.prefix or rules.suffix or rules.contains or rules.const:
        return True
    allowed = getattr(rules, "in")
    if (allowed and "" not in allowed) or "" in rules.not_in:
        return True
    if rules.pattern:
        pattern = pattern_of(rules.pattern)
        return bool(pattern) and re.search(pattern.replace("(?<", "(?P<"), "") is None
    return rules.WhichOneof("well_known") is not None


def _refuses_number_zero(rules: Any) -> bool:
    allowed = getattr(rules, "in")
    if (allowed and 0 not in allowed) or 0 in rules.not_in or rules.const:
        return True
    bounds = rules.DESCRIPTOR.fields_by_name
    if "gt" not in bounds:
        return False
    too_low = (rules.HasField("gt") and rules.gt >= 0) or (rules.HasField("gte") and rules.gte > 0)
    too_high = (rules.HasField("lt") and rules.lt <= 0) or (rules.HasField("lte") and rules.lte < 0)
    return bool(too_low or too_high)
