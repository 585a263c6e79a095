"""`zaaz wallet list` and `zaaz wallet verify`, against a real server."""

import json
from collections.abc import AsyncIterator

import pytest
from bson import ObjectId

from tests.client.commands import zaaz
from tests.conftest import MongoClient
from tests.run.command import free_port
from tests.serving import Served, new_key, new_user, serving

CREDITS = 5_000_000
MORE = "Only the first 2: --limit 0 lists all.\n"


@pytest.fixture
async def own(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[tuple[Served, str]]:
    """A server whose wallets nobody else makes, and its database's name."""
    name = f"test_{new_key()[:16]}"
    async with serving(mongo_url, name) as server:
        yield server, name
    await mongo_client.drop_database(name)


class TestList:
    async def test_in_the_order_of_their_making_and_no_more_than_wanted(
        self, own: tuple[Served, str]
    ) -> None:
        served, _ = own
        users = [await served.new_wallet(CREDITS + place) for place in range(3)]
        code, out, err = await zaaz(served, "wallet", "list", "--limit", "2")
        assert (code, err) == (0, MORE)
        assert users[2] not in out
        assert out.index(users[0]) < out.index(users[1])
        assert "5.000001" in out
        _, out, _ = await zaaz(served, "wallet", "list", "--json")
        assert [json.loads(line)["user_id"] for line in out.splitlines()] == users
        code, out, err = await zaaz(served, "wallet", "list", "--limit", "2", "--json")
        assert [json.loads(line)["user_id"] for line in out.splitlines()] == users[:2]
        assert (code, err) == (0, MORE)
        for limit in ("3", "0"):  # all that there are, and all
            code, out, err = await zaaz(served, "wallet", "list", "--limit", limit)
            assert (code, err) == (0, "")
            assert all(user in out for user in users)
        # What is copied from a table is whole on the narrowest terminal, too.
        _, out, _ = await zaaz(served, "wallet", "list", COLUMNS="80")
        assert all(user in out for user in users)

    async def test_by_address(self, served: Served) -> None:
        address = f"{new_key()}@example.com"
        code, out, _ = await zaaz(served, "wallet", "list", "--email", address, "--json")
        assert (code, out) == (0, "")

    async def test_without_a_server(self, served: Served) -> None:
        nowhere = f"127.0.0.1:{free_port()}"
        code, _, err = await zaaz(served, "wallet", "list", ZAAZ_TARGET=nowhere)
        assert code == 3
        assert nowhere in err


class TestCreate:
    async def test_makes_one_and_leaves_one_that_there_is(self, served: Served) -> None:
        user_id = new_user()
        address = f"{new_key()}@example.com"
        for credits_micros, told in ((CREDITS, "0.000000"), (0, "5.000000")):
            words = ("wallet", "create", user_id, "--email", address)
            code, out, err = await zaaz(served, *words)
            assert (code, err) == (0, "")
            assert out == f"{user_id} has a wallet, with {told} credits.\n"
            if credits_micros:
                await served.grant(user_id, credits_micros)
        _, out, _ = await zaaz(served, "wallet", "list", "--email", address, "--json")
        assert json.loads(out)["user_id"] == user_id
        code, out, _ = await zaaz(served, "wallet", "create", user_id, "--json")
        assert (code, json.loads(out)["credits_micros"]) == (0, str(CREDITS))

    async def test_what_cannot_be(self, served: Served) -> None:
        for words in (("ada",), (new_user(), "--email", "ada")):
            code, out, err = await zaaz(served, "wallet", "create", *words)
            assert (code, out) == (2, "")
            assert "hex" in err or "email" in err


class TestVerify:
    async def test_sound_ones(self, served: Served) -> None:
        users = [await served.new_wallet(CREDITS) for _ in range(2)]
        await served.consume(users[0], 1)
        code, out, _ = await zaaz(served, "wallet", "verify", *users)
        assert (code, out) == (0, "Sound: 2 wallets, 3 transactions.\n")

    async def test_one_that_was_tampered_with(
        self, own: tuple[Served, str], mongo_client: MongoClient
    ) -> None:
        served, name = own
        sound, bent = await served.new_wallet(CREDITS), await served.new_wallet(CREDITS)
        changed = await mongo_client[name].user_wallets.update_one(
            {"user_id": ObjectId(bent)}, {"$inc": {"credits_micros": 7}}
        )
        assert changed.modified_count == 1
        code, out, err = await zaaz(served, "wallet", "verify", "--all")
        assert code == 1
        assert bent in out
        assert sound not in out
        assert "1 of 2 wallets are not sound" in err
        code, out, _ = await zaaz(served, "wallet", "verify", "--all", "--json")
        lines = {line["user_id"]: line for line in map(json.loads, out.splitlines())}
        assert code == 1
        assert (lines[sound]["sound"], lines[bent]["sound"]) == (True, False)
        assert lines[bent]["differences"][0]["field"] == "credits_micros"

    async def test_what_was_found_before_a_failure(self, served: Served) -> None:
        users = [await served.new_wallet(CREDITS), new_user()]
        code, out, err = await zaaz(served, "wallet", "verify", *users)
        assert (code, out) == (1, "Verified 1 wallets: 0 are not sound.\n")
        assert "WALLET_NOT_FOUND" in err

    async def test_what_there_is_not(self, served: Served) -> None:
        code, _, err = await zaaz(served, "wallet", "verify", new_user())
        assert code == 1
        assert "WALLET_NOT_FOUND" in err
        code, _, err = await zaaz(served, "wallet", "verify")
        assert code == 2
        assert "--all" in err
