"""The document of a contract that has every kind of field and of binding."""

from typing import Any

import openapi_spec_validator
import pytest

from gateway.openapi.comments import Comments
from gateway.openapi.document import document
from gateway.routes import routes_of
from tests.gateway.echo import echo_file

Json = dict[str, Any]


@pytest.fixture(scope="module")
def echoed() -> Json:
    return document(routes_of([echo_file()]), Comments({}))


def everything(echoed: Json) -> Json:
    found: Json = echoed["components"]["schemas"]["testing.echo.v1.EverythingSent"]["properties"]
    return found


def test_is_openapi(echoed: Json) -> None:
    openapi_spec_validator.validate(echoed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("big_number", {"type": "string", "format": "int64"}),
        ("ubig", {"type": "string", "format": "uint64"}),
        ("small", {"type": "integer", "format": "int32"}),
        ("usmall", {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}),
        ("single", {"type": "number", "format": "float"}),
        ("twice", {"type": "number", "format": "double"}),
        ("is_on", {"type": "boolean"}),
        ("raw", {"type": "string", "contentEncoding": "base64"}),
        ("at_time", {"type": "string", "format": "date-time"}),
        ("tags", {"type": "array", "items": {"type": "string"}}),
        ("colour", {"$ref": "#/components/schemas/testing.echo.v1.Colour"}),
        ("child", {"$ref": "#/components/schemas/testing.echo.v1.EverythingSent"}),
    ],
)
def test_a_field_is_described_by_its_kind(echoed: Json, name: str, expected: Json) -> None:
    assert everything(echoed)[name].items() >= expected.items()


def test_maps_are_objects_of_their_values(echoed: Json) -> None:
    amounts, by_flag = everything(echoed)["amounts"], everything(echoed)["by_flag"]

    assert amounts["additionalProperties"]["format"] == "int64"
    assert by_flag["additionalProperties"]["$ref"].endswith(".EverythingSent")


def test_a_choice_is_one_at_most_and_optional_is_no_choice(echoed: Json) -> None:
    [choice] = echoed["components"]["schemas"]["testing.echo.v1.EverythingSent"]["allOf"]

    assert {"required": ["one"]} in choice["oneOf"]
    assert {"required": ["maybe"]} not in choice["oneOf"]


def test_an_enum_is_its_names(echoed: Json) -> None:
    names = echoed["components"]["schemas"]["testing.echo.v1.Colour"]["enum"]

    assert names == ["COLOUR_UNSPECIFIED", "COLOUR_RED", "COLOUR_BLUE"]


def test_a_query_names_fields_of_fields_and_has_an_end(echoed: Json) -> None:
    parameters = echoed["paths"]["/api/everything/{text}"]["get"]["parameters"]
    names = [each["name"] for each in parameters if each.get("in") == "query"]

    assert {"everything.small", "everything.tags", "everything.child.at_time"} <= set(names)
    assert "everything.text" not in names, "the path has it"
    assert not any("amounts" in name or "children" in name for name in names)
    assert max(name.count(".") for name in names) == 3


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("post", "/api/uploads/{name}"),
        ("put", "/api/bodies/{name}"),
        ("post", "/api/hooks/{source}"),
    ],
)
def test_bytes_go_in_as_they_are(echoed: Json, verb: str, path: str) -> None:
    assert list(echoed["paths"][path][verb]["requestBody"]["content"]) == ["*/*"]


@pytest.mark.parametrize("path", ["/api/downloads/{name}", "/api/chunks/{name}"])
def test_bytes_come_out_as_they_are(echoed: Json, path: str) -> None:
    told = echoed["paths"][path]["get"]

    assert list(told["responses"]["200"]["content"]) == ["*/*"]
    assert {"$ref": "#/components/parameters/Last-Event-ID"} not in told["parameters"]


def test_patterns_of_variables_are_left_out(echoed: Json) -> None:
    assert {"/api/named/{name}", "/api/named/{name}:open"} <= echoed["paths"].keys()


def test_each_binding_of_a_method_has_a_name_of_its_own(echoed: Json) -> None:
    names = [each["operationId"] for path in echoed["paths"].values() for each in path.values()]

    assert {"EchoService_GetName", "EchoService_GetName2", "EchoService_GetName3"} <= set(names)
