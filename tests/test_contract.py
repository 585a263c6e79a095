"""Promises of the contract that the compiler and the linter do not check."""

import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from buf.validate import validate_pb2
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from zaaz.auth.v1 import auth_service_pb2
from zaaz.common.v1 import access_pb2, error_reason_pb2

from server.kernel.errors import Reason
from server.kernel.principal import ADMIN

STUBS = Path(access_pb2.__file__).parents[2]
FILES = [
    import_module(f"zaaz.{path.parts[-3]}.v1.{path.stem}").DESCRIPTOR
    for path in sorted(STUBS.glob("*/v1/*_service_pb2.py"))
]
PREFIX = "ERROR_REASON_"
VERBS = ("get", "put", "post", "delete", "patch")
READ_ONLY = re.compile(
    "Get|List|Verify|Watch|Check|Estimate|Explain|Export|Quote"
    "|IngestUsage|BatchConsume|CreateStreamTicket"
)
"""What reads, and what carries a key of its own for each item."""

WHOLE = {"ListOffers"}
"""Lists that are shown whole, on one screen."""

METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
EVERY_METHOD = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)


def access_of(method: MethodDescriptor) -> access_pb2.AccessRule:
    return method.GetOptions().Extensions[access_pb2.access]


def route_of(method: MethodDescriptor) -> http_pb2.HttpRule | None:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return None
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    return rule


def routes(rule: http_pb2.HttpRule) -> Iterator[tuple[str, str]]:
    """Every verb and path of a rule, its additional ones too."""
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        assert verb in VERBS
        yield verb, getattr(each, verb)


def shape(path: str) -> str:
    """What a router sees: the names of a path's variables do not tell two paths apart."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_the_services_of_every_domain_are_checked() -> None:
    found = {method.containing_service.name for method in METHODS}

    assert found >= {"AuthService", "CreditsService", "UsageService", "WalletService"}


def test_reasons_are_the_contracts() -> None:
    names = set(error_reason_pb2.ErrorReason.keys()) - {f"{PREFIX}UNSPECIFIED"}

    assert {name.removeprefix(PREFIX) for name in names} == {reason.value for reason in Reason}


@EVERY_METHOD
def test_every_method_says_who_may_call(method: MethodDescriptor) -> None:
    rule = access_of(method)

    assert rule.public != bool(rule.scopes), "either public or scopes"


def test_every_scope_can_be_given_to_a_key() -> None:
    field = auth_service_pb2.CreateApiKeyRequest.DESCRIPTOR.fields_by_name["scopes"]
    rules = field.GetOptions().Extensions[validate_pb2.field]
    given = set(getattr(rules.repeated.items.string, "in"))

    taken = {scope for method in METHODS for scope in access_of(method).scopes}

    assert taken <= given
    assert ADMIN in given


@EVERY_METHOD
def test_what_rest_can_carry_has_one_route(method: MethodDescriptor) -> None:
    rule = route_of(method)

    if method.client_streaming:
        assert rule is None
    else:
        assert rule is not None
        assert rule.WhichOneof("pattern")


def test_no_two_routes_collide() -> None:
    found = Counter(
        (verb, shape(path))
        for method in METHODS
        if (rule := route_of(method)) is not None
        for verb, path in routes(rule)
    )

    assert [route for route, times in found.items() if times > 1] == []


@EVERY_METHOD
def test_a_routes_variables_are_fields_of_the_request(method: MethodDescriptor) -> None:
    rule = route_of(method)
    for _, path in routes(rule) if rule is not None else ():
        for variable in re.findall(r"\{([^}=]*)", path):
            fields = method.input_type.fields_by_name
            for name in variable.split("."):
                assert name in fields
                field: FieldDescriptor = fields[name]
                fields = field.message_type.fields_by_name if field.message_type else {}


@EVERY_METHOD
def test_what_changes_something_takes_a_request_id(method: MethodDescriptor) -> None:
    if not READ_ONLY.match(method.name):
        assert "request_id" in method.input_type.fields_by_name


@EVERY_METHOD
def test_lists_are_paged_from_the_outset(method: MethodDescriptor) -> None:
    if not method.name.startswith("List") or method.name in WHOLE:
        return
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    first = min(method.output_type.fields, key=lambda field: field.number)
    assert first.number == 1
    assert first.is_repeated
    assert "next_page_token" in method.output_type.fields_by_name
