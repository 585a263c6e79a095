"""The gateway's own JSON against protobuf's: for any message, the same document both ways."""

from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.decoding import Decoders, parse_json
from gateway.encoding import Encoders, to_bytes
from tests.gateway.echo import echo_file, message

EVERYTHING = echo_file().message_types_by_name["Everything"]
ENCODE = Encoders().message(EVERYTHING)
DECODE = Decoders().message(EVERYTHING).fill
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
TIMES = st.fixed_dictionaries(
    {"seconds": st.integers(-62_135_596_800, 253_402_300_799), "nanos": st.integers(0, 999_999_999)}
)
LENGTHS = st.fixed_dictionaries({"seconds": st.integers(-315_576_000_000, 315_576_000_000)})

PLAIN = {
    "text": TEXTS,
    "small": INT32,
    "big_number": INT64,
    "usmall": st.integers(0, 2**32 - 1),
    "ubig": UINT64,
    "signed_big": INT64,
    "fixed_big": UINT64,
    "twice": st.floats(allow_nan=False),
    "single": st.floats(width=32, allow_nan=False),
    "is_on": st.booleans(),
    "raw": st.binary(max_size=20),
    "colour": st.sampled_from([0, 1, 7, 99]),
    "tags": st.lists(TEXTS, max_size=3),
    "colours": st.lists(st.sampled_from([0, 1, 7]), max_size=3),
    "amounts": st.dictionaries(TEXTS, INT64, max_size=3),
    "colours_by_number": st.dictionaries(INT32, st.sampled_from([0, 1, 7]), max_size=3),
    "maybe": INT32,
    "one": TEXTS,
    "at_time": TIMES,
    "times": st.lists(TIMES, max_size=2),
    "took": LENGTHS,
    "boxed": st.fixed_dictionaries({"value": INT64}),
    "boxed_text": st.fixed_dictionaries({"value": TEXTS}),
    "times_by_name": st.dictionaries(TEXTS, TIMES, max_size=2),
}
FIELDS = st.fixed_dictionaries({}, optional=PLAIN)


@st.composite
def everythings(draw: st.DrawFn) -> Any:
    """An Everything, with some of its kind inside."""
    fields = draw(FIELDS)
    made = filled(fields)
    for inner in draw(st.lists(FIELDS, max_size=2)):
        made.children.append(filled(inner))
    if draw(st.booleans()):
        made.child.CopyFrom(filled(draw(FIELDS)))
        made.by_flag[True].CopyFrom(filled(draw(FIELDS)))
    return made


def filled(fields: dict[str, Any]) -> Any:
    times = {
        key: GetMessageClass(EVERYTHING.fields_by_name["at_time"].message_type)(**value)  # type: ignore[arg-type]
        for key, value in fields.get("times_by_name", {}).items()
    }
    made = message("Everything", **{k: v for k, v in fields.items() if k != "times_by_name"})
    for key, value in times.items():
        made.times_by_name[key].CopyFrom(value)
    return made


@given(everythings())
@settings(max_examples=80, deadline=None)
def test_out_as_protobuf_does(made: Any) -> None:
    theirs = json_format.MessageToDict(
        made, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )

    assert orjson.loads(to_bytes(ENCODE(made))) == orjson.loads(orjson.dumps(theirs))


@given(everythings())
@settings(max_examples=80, deadline=None)
def test_in_either_way_is_the_same_message(made: Any) -> None:
    for names in (True, False):
        text = json_format.MessageToJson(made, preserving_proto_field_name=names)
        back = message("Everything")
        DECODE(back, parse_json(text.encode()))
        assert back == made
