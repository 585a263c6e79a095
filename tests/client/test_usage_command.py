"""`zaaz usage rejected`, against a real server."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status
from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.client.commands import zaaz
from tests.serving import Served, new_user, usage_event

from .peer import Peer, status

REJECTED = ("usage", "rejected")
BATCH = 1_000
IDS = [f"{number:024x}" for number in range(BATCH + 1)]


async def reject(served: Served, user_id: str, count: int) -> None:
    """Events of a user without a wallet."""
    results = await served.record(*(usage_event(user_id) for _ in range(count)))
    assert all(result.error.kept for result in results)


async def ids(served: Served, user_id: str) -> list[str]:
    ended = await zaaz(served, *REJECTED, "list", "--user", user_id, "--json")
    assert ended.code == 0
    return [json.loads(line)["id"] for line in ended.out.splitlines()]


class TestRejected:
    async def test_listed(self, served: Served) -> None:
        user_id = new_user()
        await reject(served, user_id, 3)
        code, out, err = await zaaz(served, *REJECTED, "list", "--user", user_id, "--limit", "2")
        assert (code, err) == (0, "Only the first 2: --limit 0 lists all.\n")
        assert out.count(f" {user_id} │") == 2
        assert "WALLET_NOT_FOUND" in out

    async def test_what_callers_write_is_shown_as_it_is(self, served: Served) -> None:
        event = usage_event(new_user(), usage_key="[/red] [bold] :x: one")
        await served.record(event)
        code, out, _ = await zaaz(served, *REJECTED, "list", "--user", event.user_id)
        assert (code, event.usage_key in out) == (0, True)

    async def test_replayed_once_it_can_be_billed(self, served: Served) -> None:
        user_id = new_user()
        await reject(served, user_id, 3)
        one, *rest = await ids(served, user_id)
        early = await zaaz(served, *REJECTED, "replay", one)
        assert early.code == 1
        assert "WALLET_NOT_FOUND" in early.out
        assert "1 of 1 were refused again" in early.err
        await served.new_wallet(10_000_000, user_id)
        code, out, _ = await zaaz(served, *REJECTED, "replay", one, "--json")
        line = json.loads(out)
        assert (code, line["id"]) == (0, one)
        assert line["receipt"]["credits_micros"] == "540000"
        assert await ids(served, user_id) == rest
        code, out, _ = await zaaz(served, *REJECTED, "replay", "--all", "--user", user_id)
        assert (code, out) == (0, "Billed 2 of 2: 1.080000 credits.\n")
        assert await ids(served, user_id) == []
        assert (await served.wallet(user_id)).credits_micros == 10_000_000 - 3 * 540_000

    async def test_discarded_when_that_is_meant(self, served: Served) -> None:
        user_id = new_user()
        await reject(served, user_id, 3)
        one, *rest = await ids(served, user_id)
        no = await zaaz(served, *REJECTED, "discard", one, answer="n\n")
        assert (no.code, await ids(served, user_id)) == (1, [one, *rest])
        yes = await zaaz(served, *REJECTED, "discard", one, answer="y\n")
        assert yes.code == 0
        assert "Discarded 1." in yes.out
        assert await ids(served, user_id) == rest
        words = ("discard", "--all", "--user", user_id, "--yes", "--json")
        all_ = await zaaz(served, *REJECTED, *words)
        assert json.loads(all_.out) == {"discarded": 2}
        assert await ids(served, user_id) == []

    async def test_nothing_is_meant_by_chance(self, served: Served) -> None:
        for words in (
            ("replay",),
            ("discard", "--yes"),
            ("replay", new_user(), "--all"),
            ("replay", new_user(), "--user", new_user()),
            ("discard", "--all", "--json"),
            ("discard", "no-id"),
        ):
            code, out, err = await zaaz(served, *REJECTED, *words)
            assert (code, out) == (2, ""), words
            assert "Error: " in err


class Breaking(Peer):
    """Takes the first batch, and refuses the second."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    async def ReplayRejectedUsage(  # noqa: N802
        self, request: pb.ReplayRejectedUsageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReplayRejectedUsageResponse:
        await self._take_batch(request.ids, context)
        billed = pb.RecordUsageResult(receipt=pb.UsageReceipt(credits_micros=1_000))
        return pb.ReplayRejectedUsageResponse(results=[billed] * len(request.ids))

    async def DiscardRejectedUsage(  # noqa: N802
        self, request: pb.DiscardRejectedUsageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DiscardRejectedUsageResponse:
        await self._take_batch(request.ids, context)
        return pb.DiscardRejectedUsageResponse(discarded=len(request.ids))

    async def _take_batch(self, ids: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.batches.append(len(ids))
        if len(self.batches) == 2:
            refusal = status(grpc.StatusCode.NOT_FOUND, "REJECTED_USAGE_NOT_FOUND")
            await context.abort_with_status(rpc_status.to_status(refusal))


class TestABatchThatFails:
    @pytest.fixture
    async def breaking(self) -> AsyncIterator[Breaking]:
        peer = Breaking()  # type: ignore[abstract]
        await peer.start()
        yield peer
        await peer.stop()

    async def test_leaves_what_was_replayed_before_it_told(self, breaking: Breaking) -> None:
        code, out, err = await zaaz(breaking, *REJECTED, "replay", *IDS)
        assert (code, out) == (1, "Billed 1,000 of 1,000: 1.000000 credits.\n")
        assert "REJECTED_USAGE_NOT_FOUND" in err
        assert breaking.batches == [BATCH, 1]

    async def test_leaves_each_line_of_json_before_it_told(self, breaking: Breaking) -> None:
        code, out, _ = await zaaz(breaking, *REJECTED, "replay", *IDS, "--json")
        assert code == 1
        assert [json.loads(line)["id"] for line in out.splitlines()] == IDS[:BATCH]

    @pytest.mark.parametrize(
        ("words", "told"), [((), "Discarded 1,000."), (("--json",), '{"discarded": 1000}')]
    )
    async def test_leaves_what_was_discarded_before_it_told(
        self, breaking: Breaking, words: tuple[str, ...], told: str
    ) -> None:
        code, out, err = await zaaz(breaking, *REJECTED, "discard", *IDS, "--yes", *words)
        assert (code, out) == (1, f"{told}\n")
        assert "REJECTED_USAGE_NOT_FOUND" in err
