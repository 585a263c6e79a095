"""`zaaz keys`, against a real server."""

import json

from tests.client.commands import zaaz
from tests.serving import Served, new_key, new_user


class TestKeys:
    async def test_from_its_making_to_its_end(self, served: Served) -> None:
        client_id = f"chat-{new_key()[:8]}"
        user_id = await served.new_wallet()
        scopes = ("--scope", "wallet.read", "--scope", "credits.write")
        made = await zaaz(served, "keys", "create", client_id, *scopes, "--name", "the chat's")
        assert made.code == 0
        key = made.out.strip()
        assert key.startswith("zaaz_")
        key_id = key.split("_")[1]
        assert key_id in made.err
        works = await zaaz(served, "wallet", "show", user_id, ZAAZ_API_KEY=key)
        assert works.code == 0

        listed = await zaaz(served, "keys", "list", "--client", client_id)
        (row,) = [line for line in listed.out.splitlines() if key_id in line]
        assert "the chat's" in row
        assert "credits.write wallet.read" in row
        assert "never" in row
        assert key not in listed.out

        for _ in range(2):
            ended = await zaaz(served, "keys", "revoke", key_id)
            assert (ended.code, ended.out) == (0, f"Revoked {key_id} of {client_id}.\n")
        gone = await zaaz(served, "keys", "list", "--client", client_id)
        assert key_id not in gone.out
        kept = await zaaz(served, "keys", "list", "--client", client_id, "--revoked", "--json")
        assert json.loads(kept.out)["revoked_time"]

    async def test_as_json(self, served: Served) -> None:
        client_id = f"chat-{new_key()[:8]}"
        words = ("--scope", "usage.write", "--expires", "2100-01-01T12:00:00Z", "--json")
        code, out, err = await zaaz(served, "keys", "create", client_id, *words)
        assert (code, err) == (0, "")
        made = json.loads(out)
        assert made["key"].startswith(f"zaaz_{made['api_key']['id']}_")
        assert made["api_key"]["expires_time"] == "2100-01-01T12:00:00Z"

    async def test_revoked_one_by_one(self, served: Served) -> None:
        client_id = f"chat-{new_key()[:8]}"
        ids = []
        for _ in range(3):
            words = ("keys", "create", client_id, "--scope", "usage.write", "--json")
            ids.append(json.loads((await zaaz(served, *words)).out)["api_key"]["id"])
        code, out, err = await zaaz(served, "keys", "revoke", *ids[:2], "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        assert (code, err) == (0, "")
        assert [line["id"] for line in lines] == ids[:2]
        assert all(line["revoked_time"] for line in lines)
        code, out, err = await zaaz(served, "keys", "revoke", ids[2], new_user(), ids[0])
        assert (code, out) == (1, f"Revoked {ids[2]} of {client_id}.\n")
        assert "API_KEY_NOT_FOUND" in err

    async def test_a_scope_that_there_is_not(self, served: Served) -> None:
        code, _, err = await zaaz(served, "keys", "create", "chat", "--scope", "wallet.eat")
        assert code == 2
        assert "scopes[0]" in err

    async def test_a_key_that_there_is_not(self, served: Served) -> None:
        code, _, err = await zaaz(served, "keys", "revoke", new_user())
        assert code == 1
        assert "API_KEY_NOT_FOUND" in err

    async def test_a_key_that_may_not(self, served: Served) -> None:
        made = await zaaz(served, "keys", "create", "chat", "--scope", "wallet.read")
        code, _, err = await zaaz(served, "keys", "list", ZAAZ_API_KEY=made.out.strip())
        assert code == 2
        assert "scope admin" in err
