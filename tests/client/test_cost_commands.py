"""`zaaz explain` and `zaaz estimate`, against a real server."""

import json

from tests.catalog.calls import new_endpoint
from tests.client.commands import zaaz
from tests.holds.conftest import Holder
from tests.run.command import free_port
from tests.serving import MODEL, Served, make_key, new_key, new_user, usage_event

ID_LIKE = "0" * 24


class TestExplain:
    async def test_reads_the_steps_aloud(self, served: Served) -> None:
        user_id = await served.new_wallet(2_000_000)
        await served.record(usage_event(user_id, usage_key="chat-9"))
        code, out, err = await zaaz(served, "explain", "chat-9", "--user", user_id)
        assert (code, err) == (0, "")
        assert "1,000 input tokens at 0.15 USD per million cost 0.00015 USD." in out
        assert "The margin of 20 % adds 0.09 credits." in out
        assert "Reckoned again: 0.540000, as billed." in out
        for name in ("model", "credit price", "margin"):
            assert f" {name} " in out
        assert "endpoint" not in out

    async def test_json_is_the_whole_answer(self, served: Served) -> None:
        user_id = await served.new_wallet(2_000_000)
        (result,) = await served.record(usage_event(user_id))
        usage_id = result.receipt.credits_transaction_id
        code, out, _ = await zaaz(served, "explain", "--id", usage_id, "--json")
        found = json.loads(out)
        assert (code, found["matches"], found["usage"]["id"]) == (0, True, usage_id)
        assert found["recomputed_credits_micros"] == "540000"

    async def test_of_a_hold_as_a_partner(self, served: Served, mongo_url: str) -> None:
        holder = Holder(served)
        user_id = await served.new_wallet(2_000_000)
        hold = await holder.place(user_id)
        await holder.capture(hold.id)
        words = ("explain", f"hold:{hold.id}", "--user", user_id)
        assert (await zaaz(served, *words)).code == 0
        key = await make_key(mongo_url, "test_served", "stranger", ["credits.read"])
        code, _, err = await zaaz(served, *words, ZAAZ_API_KEY=key)
        assert code == 1
        assert "USAGE_NOT_FOUND" in err

    async def test_needs_to_know_which(self, served: Served) -> None:
        for words in (
            (),
            ("chat-9",),
            ("--user", ID_LIKE),
            ("chat-9", "--user", ID_LIKE, "--id", ID_LIKE),
            ("chat-9", "--user", "ada"),
        ):
            code, _, err = await zaaz(served, "explain", *words)
            assert code == 2
            assert err

    async def test_of_none(self, served: Served) -> None:
        code, _, err = await zaaz(served, "explain", new_key(), "--user", new_user())
        assert code == 1
        assert "USAGE_NOT_FOUND" in err


class TestEstimate:
    async def test_shows_the_parts(self, served: Served) -> None:
        endpoint = await new_endpoint(served, 70)
        words = ("--model", MODEL, "--endpoint", endpoint.value, "--input", "1000")
        code, out, err = await zaaz(served, "estimate", *words, "--output", "500")
        assert (code, err) == (0, "")
        cells = [line.strip("│┃ ").split("│") for line in out.splitlines() if "│" in line]
        shown = {name.strip(): amount.strip() for name, amount in cells}
        assert shown == {
            "input": "0.180000",
            "output": "0.360000",
            "endpoint": "0.000070",
            "total": "0.540070",
        }

    async def test_at_the_prices_of_another_time(self, served: Served) -> None:
        endpoint = await new_endpoint(served, 70)
        words = ("estimate", "--endpoint", endpoint.value, "--json")
        code, out, _ = await zaaz(served, *words)
        assert (code, json.loads(out)["estimate"]["credits_micros"]) == (0, "70")
        code, _, err = await zaaz(served, *words, "--at", "2020-01-31")
        assert code == 1
        assert "FEATURE_ENDPOINT_NOT_FOUND" in err

    async def test_what_cannot_be_answered(self, served: Served) -> None:
        for words, expected in (
            ((), 2),
            (("--model", MODEL, "--input", "-1"), 2),
            (("--model", MODEL, "--at", "yesterday"), 2),
            (("--model", "no/such"), 1),
        ):
            code, _, err = await zaaz(served, "estimate", *words)
            assert (code, bool(err)) == (expected, True)

    async def test_without_a_server_or_a_key_that_does(self, served: Served) -> None:
        words = ("estimate", "--model", MODEL)
        nowhere = f"127.0.0.1:{free_port()}"
        assert (await zaaz(served, *words, ZAAZ_TARGET=nowhere)).code == 3
        assert (await zaaz(served, *words, ZAAZ_API_KEY="wrong")).code == 2
