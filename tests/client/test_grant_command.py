"""`zaaz grant`, against a real server."""

import json
import shlex

from tests.client.commands import zaaz
from tests.run.command import free_port
from tests.serving import Served, new_key, new_user


class TestGrant:
    async def test_gives_to_the_micro_credit(self, served: Served) -> None:
        user_id = await served.new_wallet(1)
        words = ("--source", "refund", "--expires", "2100-01-31", "--reason", "sorry")
        code, out, err = await zaaz(served, "grant", user_id, "1,250.000001", *words)
        assert (code, err) == (0, "")
        assert f"Gave 1250.000001 credits: {user_id} has 1250.000002." in out
        entry = (await served.transactions(user_id))[-1]
        assert entry.id in out
        assert (entry.credits_micros, entry.reason) == (1_250_000_001, "sorry")
        grants = {grant.id: grant for grant in (await served.wallet(user_id)).grants}
        assert grants[entry.id].expires_time.ToJsonString() == "2100-01-31T00:00:00Z"

    async def test_the_same_request_id_gives_once(self, served: Served) -> None:
        user_id = await served.new_wallet()
        words = ("grant", user_id, "5", "--json", "--request-id", new_key())
        first, second = await zaaz(served, *words), await zaaz(served, *words)
        assert (first.code, second.code) == (0, 0)
        assert json.loads(first.out) == json.loads(second.out)
        assert (await served.wallet(user_id)).credits_micros == 5_000_000

    async def test_without_a_wallet_says_how_to_make_one(self, served: Served) -> None:
        user_id = new_user()
        code, _, err = await zaaz(served, "grant", user_id, "5")
        assert code == 1
        assert "WALLET_NOT_FOUND" in err
        hint = err.splitlines()[-1]
        assert hint.startswith(f"`zaaz wallet create {user_id}` makes it")
        made = await zaaz(served, *shlex.split(hint.split("`")[1])[1:])
        assert (made.code, made.err) == (0, "")
        assert (await zaaz(served, "grant", user_id, "5")).code == 0

    async def test_what_is_no_amount(self, served: Served) -> None:
        for amount in ("0", "0.0000001", "1e3", "many"):
            code, _, err = await zaaz(served, "grant", new_user(), amount)
            assert code == 2
            assert "no number of credits" in err

    async def test_an_expiry_in_the_past(self, served: Served) -> None:
        user_id = await served.new_wallet()
        code, _, err = await zaaz(served, "grant", user_id, "5", "--expires", "2020-01-01")
        assert code == 2
        assert "expires_time" in err

    async def test_without_a_server_says_how_to_repeat_it(self, served: Served) -> None:
        user_id = await served.new_wallet()
        nowhere = f"127.0.0.1:{free_port()}"
        words = ("grant", user_id, "0.25", "--reason", "late again")
        code, _, err = await zaaz(served, *words, ZAAZ_TARGET=nowhere)
        assert code == 3
        assert nowhere in err
        again = shlex.split(err.splitlines()[-1])
        assert again[:4] == ["zaaz", "grant", user_id, "0.250000"]
        code, out, _ = await zaaz(served, *again[1:])
        assert code == 0
        assert "Gave 0.250000" in out
        assert (await served.transactions(user_id))[-1].reason == "late again"
