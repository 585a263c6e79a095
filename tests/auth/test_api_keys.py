"""What a key is: its text, its secret, its payload's fingerprint."""

import dataclasses
from collections.abc import Callable

import pytest
from bson import ObjectId
from buf.validate import validate_pb2
from hypothesis import given
from hypothesis import strategies as st
from zaaz.auth.v1 import auth_service_pb2 as pb

from server.auth.model import (
    SCOPES,
    ApiKey,
    KeySecrets,
    NewApiKey,
    format_key,
    hash_secret,
    parse_key,
    secret_matches,
)
from server.kernel.errors import DomainError, Reason

KEY_ID = ObjectId("65f000000000000000000001")
WANTED = NewApiKey("r-1", "partner", "backend", ("wallet.read", "usage.write"), 1_900_000_000_000)


def key_with(secret: str) -> ApiKey:
    return ApiKey(KEY_ID, "partner", "", ("admin",), None, None, 0, hash_secret(secret))


class TestText:
    def test_is_read_back(self) -> None:
        secret = KeySecrets("server").derive(KEY_ID)
        text = format_key(KEY_ID, secret)
        assert text.startswith(f"zaaz_{KEY_ID}_")
        assert text.count("_") == 2
        assert parse_key(text) == (KEY_ID, secret)

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: "",
            lambda text: text + "\n",
            lambda text: " " + text,
            lambda text: text.upper(),
            lambda text: text[:-1],
            lambda text: text + "a",
            lambda text: text.replace("_", "-"),
            lambda text: text.replace("zaaz", "zaas"),
            lambda text: text[:-1] + "é",
            lambda text: text[:-1] + "\ud800",
            lambda text: text[:-1] + "\uff11",
        ],
    )
    def test_anything_else_is_none(self, change: Callable[[str], str]) -> None:
        text = format_key(KEY_ID, KeySecrets("server").derive(KEY_ID))
        assert parse_key(change(text)) is None

    @given(st.text(max_size=100))
    def test_no_text_breaks_it(self, text: str) -> None:
        parse_key(text)


class TestSecret:
    def test_differs_by_key_and_by_server(self) -> None:
        secrets = {
            KeySecrets(server).derive(key_id)
            for server in ("one", "two")
            for key_id in (KEY_ID, ObjectId())
        }
        assert len(secrets) == 4

    def test_matches_only_its_own_key(self) -> None:
        key = key_with("right")
        assert secret_matches(key, "right")
        assert not secret_matches(key, "wrong")
        assert not secret_matches(None, "right")

    def test_no_secret_matches_an_unknown_key(self) -> None:
        assert not secret_matches(None, "")

    def test_is_rebuilt_only_with_the_same_server_secret(self) -> None:
        key = key_with(KeySecrets("server").derive(KEY_ID))
        assert parse_key(KeySecrets("server").rebuild(key)) is not None
        assert KeySecrets("another").rebuild(key) == ""


class TestNewApiKey:
    def test_order_of_scopes_is_no_difference(self) -> None:
        turned = dataclasses.replace(WANTED, scopes=tuple(reversed(WANTED.scopes)))
        assert turned.fingerprint() == WANTED.fingerprint()

    @pytest.mark.parametrize(
        "change",
        [
            {"client_id": "other"},
            {"name": "other"},
            {"scopes": ("wallet.read",)},
            {"expires_time": None},
        ],
    )
    def test_every_part_of_the_payload_counts(self, change: dict[str, object]) -> None:
        changed = dataclasses.replace(WANTED, **change)  # type: ignore[arg-type]
        assert changed.fingerprint() != WANTED.fingerprint()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("request_id", ""),
            ("request_id", "r" * 129),
            ("client_id", ""),
            ("client_id", "-partner"),
            ("client_id", "Partner"),
            ("client_id", "partner\n"),
            ("client_id", "p" * 64),
            ("name", "n" * 101),
            ("scopes", ()),
            ("scopes", ("wallet.read", "everything")),
        ],
    )
    def test_a_field_that_breaks_its_rule_is_named(self, field: str, value: object) -> None:
        wanted = dataclasses.replace(WANTED, **{field: value})  # type: ignore[arg-type]
        with pytest.raises(DomainError) as refusal:
            wanted.check()
        assert refusal.value.reason is Reason.FIELD_INVALID
        assert refusal.value.metadata == {"field": field}


def test_scopes_are_those_of_the_contract() -> None:
    field = pb.CreateApiKeyRequest.DESCRIPTOR.fields_by_name["scopes"]
    rules = field.GetOptions().Extensions[validate_pb2.field]
    assert tuple(getattr(rules.repeated.items.string, "in")) == SCOPES
