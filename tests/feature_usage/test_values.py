"""Values read back from their JSON are what protobuf itself makes of it."""

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from hypothesis import given

from server.credits.feature_usage.parts import keep
from server.kernel.json_values import value_of
from tests.feature_usage.test_parts import proto, values


@given(values)
def test_as_protobuf_reads_it(python: object) -> None:
    text = json_format.MessageToJson(proto(python), indent=None)
    assert value_of(text) == json_format.Parse(text, Value()) == proto(python)


@given(values)
def test_what_was_kept(python: object) -> None:
    text = keep(proto(python)).text
    assert value_of(text) == json_format.Parse(text, Value())
