"""What /openapi.json says, held against the contract that it is made from."""

import re
from typing import Any

import jsonschema_rs
import openapi_spec_validator
import protovalidate
import pytest
from google.protobuf.message_factory import GetMessageClass
from zaaz.common.v1.access_pb2 import access
from zaaz.wallet.v1 import wallet_service_pb2

from gateway.decoding import Decoders
from gateway.encoding import Encoders
from gateway.openapi.comments import REASONS, Comments
from gateway.openapi.document import document
from gateway.openapi.numerals import at_most
from gateway.openapi.parameters import WHOLE
from gateway.openapi.paths import path_fields
from gateway.routes import Route
from tests.gateway.openapi_host import (
    DOCUMENT,
    PLACES,
    ROUTES,
    operation,
    operation_of,
    schema,
    walk,
)

EVERY_ROUTE = pytest.mark.parametrize(
    "route", ROUTES, ids=lambda route: f"{route.verb} {route.path}"
)
ID = "^[0-9a-f]{24}$"


def resolved(reference: str) -> Any:
    place: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        place = place[part.replace("~1", "/").replace("~0", "~")]
    return place


def validator(content: Any) -> jsonschema_rs.Draft202012Validator:
    """Of the JSON in a body or an answer, its references within the document."""
    whole = {"components": DOCUMENT["components"], **content["schema"]}
    return jsonschema_rs.Draft202012Validator(whole)


def test_is_openapi() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def test_has_every_route_and_nothing_else() -> None:
    operations = [each for path in DOCUMENT["paths"].values() for each in path.values()]

    assert len(operations) == len(ROUTES)
    assert len({each["operationId"] for each in operations}) == len(operations)


def test_every_reference_leads_somewhere() -> None:
    references = {
        each["$ref"] for each in walk(DOCUMENT) if isinstance(each, dict) and "$ref" in each
    }

    assert len(references) > 50
    assert all(resolved(reference) for reference in references)


@EVERY_ROUTE
def test_an_operation_tells_what_it_does_and_who_may_call(route: Route) -> None:
    told = operation_of(route)

    assert told["summary"]
    assert told["description"]
    rule = route.method.GetOptions().Extensions[access]
    assert told["x-required-scopes"] == list(rule.scopes)
    assert bool(told["security"]) == (not rule.public)
    assert {"200", "400", "429", "default"} <= told["responses"].keys()
    assert ("401" in told["responses"]) == (not rule.public)


@EVERY_ROUTE
def test_every_field_of_a_request_stands_in_one_place(route: Route) -> None:
    told = operation_of(route)
    in_path = [each["name"] for each in told["parameters"] if each.get("in") == "path"]
    assert in_path == [name for _, name in PLACES.variables(route)]
    placed = [*path_fields(route), *in_query(told)]
    if route.body:
        prefix = "" if route.body == WHOLE else route.body + "."
        assert not any(name.startswith(prefix) for name in in_query(told) if prefix)
        placed += [prefix + name for name in body_properties(told)]

    top = {name.split(".")[0] for name in placed}

    assert len(set(placed)) == len(placed)
    assert {field.name for field in route.method.input_type.fields} == top


def in_query(told: Any) -> list[str]:
    return [each["name"] for each in told["parameters"] if each.get("in") == "query"]


def body_properties(told: Any) -> list[str]:
    content = told["requestBody"]["content"]["application/json"]
    return list(resolved(content["schema"]["$ref"])["properties"])


@EVERY_ROUTE
def test_examples_of_bodies_are_taken(route: Route) -> None:
    told = operation_of(route)
    content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" not in content:
        return
    request: Any = GetMessageClass(route.method.input_type)()
    into: Any = request if route.body == WHOLE else getattr(request, route.body)

    Decoders().message(into.DESCRIPTOR).fill(into, content["example"])

    broken = [
        violation_path(each) for each in protovalidate.Validator().collect_violations(request)
    ]
    elsewhere = {*path_fields(route), "request_id"}
    if route.body != WHOLE:
        elsewhere |= {f.name for f in route.method.input_type.fields if f.name != route.body}
    assert [path for path in broken if path not in elsewhere] == []


def violation_path(violation: Any) -> str:
    return ".".join(element.field_name for element in violation.proto.field.elements)


@EVERY_ROUTE
def test_examples_of_bodies_fit_their_schemas(route: Route) -> None:
    content = operation_of(route).get("requestBody", {}).get("content", {}).get("application/json")
    if content is None or "example" not in content:
        return

    validator(content).validate(content["example"])


@EVERY_ROUTE
def test_an_answer_without_content_fits_its_schema(route: Route) -> None:
    """What the encoder always writes is what a schema may require."""
    if route.method.server_streaming or route.response_body:
        return
    message: Any = GetMessageClass(route.method.output_type)()
    content = operation_of(route)["responses"]["200"]["content"].get("application/json")
    if content is None:
        return

    validator(content).validate(Encoders().message(message.DESCRIPTOR)(message))


@EVERY_ROUTE
def test_reasons_are_those_of_the_contract(route: Route) -> None:
    told = operation_of(route)

    assert set(told["x-reasons"]) <= set(REASONS)
    for reason in told["x-reasons"]:
        assert f"- `{reason}`: " in told["description"]


def test_the_problem_knows_every_reason() -> None:
    assert schema("Problem")["properties"]["reason"]["enum"] == list(REASONS)
    assert "RATE_LIMITED" in REASONS


@pytest.mark.parametrize("response", DOCUMENT["components"]["responses"].values())
def test_examples_of_refusals_are_problems(response: Any) -> None:
    content = response.get("content", {}).get("application/problem+json", {})
    if "example" in content:
        validator(content).validate(content["example"])


def test_most_of_the_contract_is_described() -> None:
    schemas = [each for name, each in DOCUMENT["components"]["schemas"].items() if "." in name]
    fields = [field for each in schemas for field in each.get("properties", {}).values()]
    described = [field for field in fields if "description" in field]

    assert len(described) > len(fields) / 3


class TestShapes:
    """One of each kind, as the contract has it."""

    def test_rules_become_constraints(self) -> None:
        body = schema("credits.GrantCreditsBody")

        assert body["properties"]["user_id"]["pattern"] == ID
        assert body["properties"]["priority"]["maximum"] == 1000
        assert body["properties"]["reason"]["maxLength"] == 500
        assert body["properties"]["labels"]["maxProperties"] == 16
        assert body["properties"]["labels"]["propertyNames"] == {
            "pattern": "^[A-Za-z0-9_./-]{1,63}$"
        }
        assert body["additionalProperties"] is False
        assert set(body["required"]) >= {"user_id", "credits_micros", "source"}
        assert "request_id" not in body["required"]

    def test_an_int64_is_a_string_that_says_its_bounds(self) -> None:
        amount = schema("credits.GrantCreditsBody")["properties"]["credits_micros"]

        assert amount["type"] == "string"
        assert amount["format"] == "int64"
        assert amount["x-exclusiveMinimum"] == "0"
        assert re.search(amount["pattern"], "1")
        assert re.search(amount["pattern"], str(2**63 - 1))
        assert not re.search(amount["pattern"], "0")
        assert not re.search(amount["pattern"], "-1")

    @pytest.mark.parametrize("limit", [1, 7, 9, 10, 19, 20, 99, 100, 120, 345, 999, 1000, 1001])
    def test_a_bound_is_a_pattern_of_digits(self, limit: int) -> None:
        taken = re.compile(f"^({at_most(limit)})$")

        assert [each for each in range(1200) if taken.search(str(each))] == [*range(1, limit + 1)]
        assert not taken.search("01")

    def test_an_id_without_a_rule_is_known_by_its_comment(self) -> None:
        told = operation("CatalogService_UpdateFeature")
        [path] = [each for each in told["parameters"] if each.get("in") == "path"]

        assert (path["name"], path["schema"]["pattern"]) == ("id", ID)

    def test_an_enum_is_its_names_and_only_those_that_are_taken(self) -> None:
        source = schema("credits.GrantCreditsBody")["properties"]["source"]

        assert source["$ref"] == "#/components/schemas/ledger.IncreaseSource"
        assert "INCREASE_SOURCE_BONUS" in source["enum"]
        assert "INCREASE_SOURCE_UNSPECIFIED" not in source["enum"]
        assert "INCREASE_SOURCE_REVERSAL" not in source["enum"]
        assert "INCREASE_SOURCE_UNSPECIFIED" in schema("ledger.IncreaseSource")["enum"]

    def test_times_masks_and_maps_have_their_own_json(self) -> None:
        body = schema("credits.GrantCreditsBody")["properties"]

        assert body["expires_time"]["format"] == "date-time"
        assert body["labels"]["additionalProperties"]["maxLength"] == 255

    def test_one_of_a_group_may_be_set(self) -> None:
        check = validator({"schema": {"$ref": "#/components/schemas/credits.ConsumeCreditsResult"}})

        assert check.is_valid({"error": {"code": 5, "message": "", "details": []}})
        assert check.is_valid({})
        assert not check.is_valid(
            {"error": {"code": 5, "message": "", "details": []}, "response": {}}
        )

    def test_what_the_path_takes_is_not_in_the_body(self) -> None:
        told = operation("CreditsService_ReverseCreditsTransaction")
        [path] = [each for each in told["parameters"] if each.get("in") == "path"]

        assert path["name"] == "id"
        assert path["schema"]["pattern"] == ID
        assert "id" not in schema("credits.ReverseCreditsTransactionBody")["properties"]

    def test_one_place_in_a_path_has_one_name(self) -> None:
        shapes = [re.sub(r"\{[^}]*\}", "{}", path) for path in DOCUMENT["paths"]]
        names = {name for path in DOCUMENT["paths"] for name in re.findall(r"\{([^}]*)\}", path)}

        assert len(set(shapes)) == len(shapes)
        assert not any("." in name for name in names)

    def test_what_is_sent_and_answered_has_two_schemas(self) -> None:
        sent, answered = schema("credits.TokenPricesSent"), schema("credits.TokenPrices")

        assert sent["properties"].keys() == answered["properties"].keys()
        assert sent["additionalProperties"] is False
        assert "additionalProperties" not in answered
        assert "input_token_price_micros" in answered["required"]
        assert "required" not in sent

    def test_a_patch_requires_nothing_and_goes_by_etag(self) -> None:
        told = operation("WalletService_UpdateWallet")
        headers = [each["$ref"].rpartition("/")[2] for each in told["parameters"] if "$ref" in each]

        assert {"If-Match", "Idempotency-Key"} <= set(headers)
        assert "412" in told["responses"]
        assert "required" not in schema("wallet.UpdateWalletBody")
        assert "user_id" not in schema("wallet.UpdateWalletBody")["properties"]

    def test_a_query_has_lists_numbers_and_what_may_be_empty(self) -> None:
        told = operation("CreditsService_ListCreditsTransactions")
        query = {each["name"]: each for each in told["parameters"] if each.get("in") == "query"}

        assert query["page_size"]["schema"]["minimum"] == 0
        assert not query["user_id"].get("required")
        assert re.search(query["user_id"]["schema"]["pattern"], "")
        assert re.search(query["user_id"]["schema"]["pattern"], "0" * 24)
        assert not re.search(query["user_id"]["schema"]["pattern"], "1")

    def test_an_enum_in_a_query_has_those_names_that_are_taken(self) -> None:
        [currency, *_] = operation("OfferService_ListOffers")["parameters"]

        assert currency["required"]
        assert currency["schema"]["enum"] == ["CURRENCY_USD", "CURRENCY_BDT"]

    def test_a_stream_is_one_of_events(self) -> None:
        told = operation("WalletService_WatchWallet")
        content = told["responses"]["200"]["content"]["text/event-stream"]

        assert content["x-event-data"]["$ref"].endswith("wallet.WatchWalletResponse")
        assert {"$ref": "#/components/parameters/Last-Event-ID"} in told["parameters"]

    def test_comments_lose_their_lines_and_their_list_of_errors(self) -> None:
        name = wallet_service_pb2.DESCRIPTOR.services_by_name["WalletService"].methods[0].full_name
        text = (
            "Makes a wallet,\nor not.\n\nTwice is fine.\nErrors: WALLET_NOT_FOUND, NO_SUCH_REASON."
        )
        comments = Comments({name: text})

        assert comments.of(name) == "Makes a wallet, or not.\n\nTwice is fine."
        assert comments.reasons(name) == ["WALLET_NOT_FOUND"]


def test_is_the_same_each_time() -> None:
    assert document(ROUTES, Comments({})) == document(ROUTES, Comments({}))
