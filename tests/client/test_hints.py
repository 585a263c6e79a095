"""Errors say what to do: with commands that there are, for reasons that there are."""

import re
import shlex

import click
import grpc
import pytest
from zaaz.common.v1.error_reason_pb2 import ErrorReason
from zaaz_client.command.hints import HINTS, with_hint
from zaaz_client.command.main import main
from zaaz_client.status import from_status

from tests.client.commands import zaaz
from tests.serving import Served, new_key, new_user

from .peer import status

COMMANDS = re.findall(r"`(zaaz [^`]+)`", " ".join(HINTS.values()))


def options(command: click.Command) -> set[str]:
    return {name for one in command.params for name in one.opts}


@pytest.mark.parametrize("reason", HINTS)
def test_the_reason_is_of_the_contract(reason: str) -> None:
    assert f"ERROR_REASON_{reason}" in ErrorReason.keys()  # noqa: SIM118 - an enum's wrapper


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_is_there(line: str) -> None:
    command: click.Command = main
    _, *words = shlex.split(line)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    assert {word for word in words if word.startswith("-")} <= options(command)


def test_the_options_that_are_named_are_there() -> None:
    explain, grant = main.commands["explain"], main.commands["grant"]
    assert {"--user", "--client"} <= options(explain)
    assert "--request-id" in options(grant)


def test_it_names_what_the_error_is_about() -> None:
    code = grpc.StatusCode.NOT_FOUND
    known = with_hint(from_status(status(code, "WALLET_NOT_FOUND", user_id="65f0")))
    assert "`zaaz wallet create 65f0`" in known
    assert "`zaaz wallet create USER_ID`" in with_hint(
        from_status(status(code, "WALLET_NOT_FOUND"))
    )
    bare = from_status(status(code, "HOLD_NOT_FOUND"))
    assert with_hint(bare) == str(bare)


async def test_commands_tell_it(served: Served) -> None:
    user_id = new_user()
    for words, reason, hint in (
        (("wallet", "show", user_id), "WALLET_NOT_FOUND", f"zaaz wallet create {user_id}"),
        (("statement", "get", user_id), "WALLET_NOT_FOUND", f"zaaz wallet create {user_id}"),
        (("keys", "revoke", user_id), "API_KEY_NOT_FOUND", "zaaz keys list --revoked"),
        (("explain", new_key(), "--user", user_id), "USAGE_NOT_FOUND", "zaaz usage rejected list"),
        (("estimate", "--model", "open/none"), "PRICE_NOT_FOUND", "zaaz models list --search"),
        (("estimate", "--endpoint", "none"), "FEATURE_ENDPOINT_NOT_FOUND", "zaaz catalog export"),
    ):
        code, _, err = await zaaz(served, *words)
        assert (code, err.startswith(f"Error: {reason}")) == (1, True), err
        assert f"`{hint}" in err
