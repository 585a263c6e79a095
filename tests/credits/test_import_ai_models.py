"""Taking over the published price list: the difference first, then as new versions."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from zaaz.credits.v1 import ai_model_pb2 as pb

from server.credits.prices.differences import Comparison, compare
from server.credits.prices.importing import package_seed
from server.credits.prices.model import ModelPrices, ModelVersion, TokenPrices
from server.credits.prices.rows import Author, changed_rows, model_rows
from server.credits.prices.seed import ModelKind, SeedModel
from tests.conftest import MongoClient
from tests.credits.priced import (
    CREDIT,
    billed,
    change_model,
    delete_model,
    dollars,
    find_model,
    get_model,
    model_histories,
)
from tests.ledger.calls import refused
from tests.serving import ManualClock, Served, new_key, serving

HOUR_MS = 3_600_000
MINI = "openai/gpt-4o-mini"
LISTED = package_seed("test").models


@pytest.fixture(scope="module")
def manual_clock() -> ManualClock:
    """One for all tests here; it only goes on."""
    return ManualClock()


@pytest.fixture(scope="module")
async def clocked(
    mongo_url: str, mongo_client: MongoClient, manual_clock: ManualClock
) -> AsyncIterator[Served]:
    """One server for all tests here: each has models of its own, as the list has them."""
    name = f"test_{new_key()[:16]}"
    async with serving(mongo_url, name, manual_clock) as server:
        yield server
    await mongo_client.drop_database(name)


async def imported(
    served: Served, *, effective_ms: int | None = None, **fields: Any
) -> pb.ImportAiModelsResponse:
    request = pb.ImportAiModelsRequest(**fields)
    if effective_ms is not None:
        request.effective_time.FromMilliseconds(effective_ms)
    answer: pb.ImportAiModelsResponse = await served.credits.ImportAiModels(request)
    return answer


class TestImport:
    async def test_of_what_was_seeded_finds_nothing(self, clocked: Served) -> None:
        found = await imported(clocked, dry_run=True)
        assert (list(found.differences), found.unchanged, found.applied) == ([], len(LISTED), False)
        assert found.source.startswith("genai-prices ")

    async def test_shows_first_and_changes_nothing(self, clocked: Served) -> None:
        model = await find_model(clocked, MINI)
        await change_model(clocked, model.id, prices=dollars(9))
        found = await imported(clocked, dry_run=True, request_id=new_key())
        (difference,) = found.differences
        assert (difference.value, difference.name, difference.provider) == (
            MINI,
            model.name,
            "openai",
        )
        assert difference.prices_before == dollars(9)
        assert difference.prices_after == model.prices
        assert (found.unchanged, found.applied) == (len(LISTED) - 1, False)
        assert (await get_model(clocked, model.id)).prices == dollars(9)
        await change_model(clocked, model.id, prices=model.prices)

    async def test_applies_as_a_new_version_once(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model = await find_model(clocked, "openai/gpt-4o")
        by_hand = await change_model(clocked, model.id, prices=dollars(5))
        manual_clock.advance(HOUR_MS)
        found = await imported(clocked)
        assert ([one.value for one in found.differences], found.applied) == (
            ["openai/gpt-4o"],
            True,
        )
        assert found.differences[0].effective_time.ToMilliseconds() == manual_clock.now_ms
        now = await get_model(clocked, model.id)
        assert (now.prices, now.name) == (model.prices, model.name)
        assert now.etag != by_hand.etag
        last = (await model_histories(clocked, model.id))[-1]
        assert (last.prices, last.client_id) == (model.prices, "tests")
        assert last.reason == f"imported from: {found.source}"
        assert await billed(clocked, model.value, manual_clock.now_ms - 1) == 6 * CREDIT
        assert await billed(clocked, model.value, manual_clock.now_ms) == 3 * CREDIT
        again = await imported(clocked)
        assert (list(again.differences), again.unchanged) == ([], len(LISTED))

    async def test_a_request_id_is_answered_once(self, clocked: Served) -> None:
        model = await find_model(clocked, "openai/gpt-4")
        await change_model(clocked, model.id, prices=dollars(5))
        request_id = new_key()
        first = await imported(clocked, request_id=request_id)
        assert len(first.differences) == 1
        assert await imported(clocked, request_id=request_id) == first
        with refused("REQUEST_ID_REUSED"):
            await imported(clocked, request_id=request_id, dry_run=True)

    async def test_what_was_purged_is_new_and_what_was_deleted_stays_so(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        purged = await find_model(clocked, "anthropic/claude-3-haiku")
        deleted = await find_model(clocked, "anthropic/claude-2")
        await clocked.credits.PurgeAiModel(pb.PurgeAiModelRequest(id=purged.id))
        await delete_model(clocked, deleted.id)
        found = await imported(clocked, providers=["anthropic"])
        (difference,) = found.differences
        assert (difference.value, difference.HasField("prices_before")) == (purged.value, False)
        back = await find_model(clocked, purged.value)
        assert (back.prices, back.kind) == (purged.prices, pb.AI_MODEL_KIND_LLM)
        assert await billed(clocked, purged.value, manual_clock.now_ms) != "PRICE_NOT_FOUND"
        assert (await get_model(clocked, deleted.id)).is_deleted

    async def test_of_some_providers(self, clocked: Served) -> None:
        model = await find_model(clocked, "openai/o1")
        await change_model(clocked, model.id, prices=dollars(5))
        listed = sum(1 for one in LISTED if one.provider == "mistral")
        found = await imported(clocked, dry_run=True, providers=["mistral"])
        assert (list(found.differences), found.unchanged) == ([], listed)
        assert listed
        found = await imported(clocked, providers=["openai"])
        assert [one.value for one in found.differences] == ["openai/o1"]

    async def test_ahead_of_time(self, clocked: Served, manual_clock: ManualClock) -> None:
        model = await find_model(clocked, "openai/o1-mini")
        await change_model(clocked, model.id, prices=dollars(5))
        begins = manual_clock.now_ms + HOUR_MS
        found = await imported(clocked, effective_ms=begins, providers=["openai"])
        assert found.differences[0].effective_time.ToMilliseconds() == begins
        again = await imported(clocked, effective_ms=begins, providers=["openai"])
        assert not again.differences
        assert (await get_model(clocked, model.id)).prices == dollars(5)
        manual_clock.advance(HOUR_MS)
        assert (await get_model(clocked, model.id)).prices == model.prices
        with refused("FIELD_INVALID") as refusal:
            await imported(clocked, effective_ms=manual_clock.now_ms - 1)
        assert refusal.metadata["field"] == "effective_time"


def priced(amount: int) -> ModelPrices:
    return ModelPrices(TokenPrices(amount, 0))


def listed(*versions: tuple[int, int | None]) -> SeedModel:
    made = (ModelVersion(start, None if one is None else priced(one)) for start, one in versions)
    return SeedModel("p/one", "One", "p", ModelKind.LLM, tuple(made))


class TestCompare:
    """Lists of which the package has none: with prices to come."""

    AUTHOR = Author("tests", "", 100, 1)

    def compare(self, theirs: SeedModel, ours: SeedModel, at: int = 100) -> Comparison:
        return compare([theirs], [model_rows(ours, self.AUTHOR)[0]], (), at)

    def test_prices_to_come_are_compared_at_their_times(self) -> None:
        theirs = listed((0, 1), (200, 2), (300, 3))
        found = self.compare(theirs, listed((0, 1), (200, 2), (300, 4)))
        assert [(one.start_ms, one.before, one.after) for one in found.differences] == [
            (300, priced(4), priced(3))
        ]
        (changed,) = found.changed
        row, histories = changed_rows(changed.row, changed.versions, self.AUTHOR)
        assert compare([theirs], [row], (), 100).differences == ()
        assert [row["prices"]["input_token_price_micros"] for row in histories] == [3]

    def test_a_price_of_now_leaves_those_to_come(self) -> None:
        theirs = listed((0, 1))
        found = self.compare(theirs, listed((0, 5), (200, 2)))
        (changed,) = found.changed
        row, _ = changed_rows(changed.row, changed.versions, self.AUTHOR)
        assert row["prices"]["input_token_price_micros"] == 1
        assert len(row["scheduled"]) == 1

    def test_a_price_that_goes_is_left(self) -> None:
        assert self.compare(listed((0, 1), (50, None)), listed((0, 1))).differences == ()

    def test_a_new_model_is_shown_with_the_price_of_the_time(self) -> None:
        found = compare([listed((0, 1), (50, 2), (200, 3))], [], (), 100)
        (difference,) = found.differences
        assert (difference.before, difference.after) == (None, priced(2))
        assert len(found.added) == 1
