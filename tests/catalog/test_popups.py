"""Which popups a user is shown, through the contract."""

import asyncio
from typing import Any

import pytest
from zaaz.catalog.v1 import feature_popup_display_pb2 as pb
from zaaz.catalog.v1.feature_popup_pb2 import (
    POPUP_CATEGORY_MULTI_TIME,
    POPUP_CATEGORY_SINGLE_TIME,
    CreateFeaturePopupRequest,
    DeleteFeaturePopupRequest,
    FeaturePopup,
    PurgeFeaturePopupRequest,
    UpdateFeaturePopupRequest,
)

from tests.catalog.calls import change_feature, new_feature
from tests.ledger.calls import refused
from tests.serving import ManualClock, Served, connected, make_key, new_key, new_user

DAY_MS = 86_400_000


async def new_popup(served: Served, feature: Any, **fields: Any) -> Any:
    values = {
        "feature_id": feature.id,
        "name": "Hello",
        "value": f"popup-{new_key()}",
        "category": POPUP_CATEGORY_SINGLE_TIME,
        "is_active": True,
        **fields,
    }
    request = CreateFeaturePopupRequest(feature_popup=FeaturePopup(**values))
    return (await served.catalog.CreateFeaturePopup(request)).feature_popup


async def shown(served: Served, user_id: str, feature: Any = None, limit: int = 0) -> list[str]:
    request = pb.GetFeaturePopupsRequest(
        user_id=user_id, feature=feature.value if feature else "", limit=limit
    )
    return [one.id for one in (await served.catalog.GetFeaturePopups(request)).feature_popups]


async def dismiss(
    served: Served, user_id: str, popup: Any, until_ms: int | None = None
) -> int | None:
    """When it may be shown again."""
    request = pb.DismissFeaturePopupRequest(user_id=user_id, feature_popup_id=popup.id)
    if until_ms is not None:
        request.hide_until_time.FromMilliseconds(until_ms)
    answer = await served.catalog.DismissFeaturePopup(request)
    if not answer.HasField("hidden_until_time"):
        return None
    return int(answer.hidden_until_time.ToMilliseconds())


class TestGet:
    async def test_the_higher_priority_comes_first_then_the_older(self, served: Served) -> None:
        feature, user = await new_feature(served), new_user()
        low = await new_popup(served, feature, priority=-1)
        first = await new_popup(served, feature, priority=5)
        second = await new_popup(served, feature, priority=5)
        assert await shown(served, user, feature) == [first.id, second.id, low.id]
        assert await shown(served, user, feature, limit=2) == [first.id, second.id]

    async def test_twenty_unless_asked_otherwise(self, served: Served) -> None:
        feature, user = await new_feature(served), new_user()
        await asyncio.gather(*(new_popup(served, feature) for _ in range(21)))
        assert len(await shown(served, user, feature)) == 20
        assert len(await shown(served, user, feature, limit=100)) == 21
        with refused("FIELD_INVALID"):
            await shown(served, user, feature, limit=101)

    async def test_whole_rows_of_all_features(self, clocked: Served) -> None:
        user = new_user()
        first = await new_popup(clocked, await new_feature(clocked), priority=2)
        second = await new_popup(clocked, await new_feature(clocked), priority=1)
        answer = await clocked.catalog.GetFeaturePopups(pb.GetFeaturePopupsRequest(user_id=user))
        assert list(answer.feature_popups) == [first, second]

    async def test_what_is_switched_off_is_not_shown(self, served: Served) -> None:
        top, user = await new_feature(served), new_user()
        feature = await new_feature(served, parent_id=top.id)
        popup = await new_popup(served, feature)
        await new_popup(served, feature, is_active=False)
        assert await shown(served, user, feature) == [popup.id]
        await change_feature(served, top.id, is_active=False)
        assert await shown(served, user, feature) == []
        await change_feature(served, top.id, is_active=True)
        await change_feature(served, feature.id, is_active=False)
        assert await shown(served, user, feature) == []

    async def test_deleted_ones_are_not_shown(self, served: Served) -> None:
        feature, user = await new_feature(served), new_user()
        popup = await new_popup(served, feature)
        await served.catalog.DeleteFeaturePopup(DeleteFeaturePopupRequest(id=popup.id))
        assert await shown(served, user, feature) == []

    async def test_of_an_unknown_feature_there_are_none(self, served: Served) -> None:
        feature = await new_feature(served)
        await new_popup(served, feature)
        feature.value = new_key()
        assert await shown(served, new_user(), feature) == []

    async def test_no_more_than_a_message_holds(self, served: Served) -> None:
        feature = await new_feature(served)
        content = "x" * 49_000
        await asyncio.gather(*(new_popup(served, feature, content=content) for _ in range(70)))
        assert 50 < len(await shown(served, new_user(), feature, limit=100)) < 70


class TestDismiss:
    async def test_single_time_is_for_ever(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        feature, user = await new_feature(clocked), new_user()
        popup = await new_popup(clocked, feature)
        assert await dismiss(clocked, user, popup, manual_clock.now_ms + 1) is None
        manual_clock.advance(400 * DAY_MS)
        assert await shown(clocked, user, feature) == []
        assert await shown(clocked, new_user(), feature) == [popup.id]

    async def test_multi_time_is_for_a_day(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        feature, user = await new_feature(clocked), new_user()
        popup = await new_popup(clocked, feature, category=POPUP_CATEGORY_MULTI_TIME)
        assert await dismiss(clocked, user, popup) == manual_clock.now_ms + DAY_MS
        manual_clock.advance(DAY_MS - 1)
        assert await shown(clocked, user, feature) == []
        manual_clock.advance(1)
        assert await shown(clocked, user, feature) == [popup.id]

    async def test_multi_time_is_until_the_time_given(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        feature, user = await new_feature(clocked), new_user()
        popup = await new_popup(clocked, feature, category=POPUP_CATEGORY_MULTI_TIME)
        until_ms = manual_clock.now_ms + 365 * DAY_MS
        assert await dismiss(clocked, user, popup, until_ms) == until_ms
        manual_clock.advance(365 * DAY_MS - 1)
        assert await shown(clocked, user, feature) == []
        manual_clock.advance(1)
        assert await shown(clocked, user, feature) == [popup.id]

    async def test_longer_than_a_year_is_refused(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        popup = await new_popup(clocked, await new_feature(clocked))
        with refused("FIELD_INVALID"):
            await dismiss(clocked, new_user(), popup, manual_clock.now_ms + 367 * DAY_MS)

    async def test_the_later_one_counts_whoever_comes_last(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        feature, user = await new_feature(clocked), new_user()
        popup = await new_popup(clocked, feature, category=POPUP_CATEGORY_MULTI_TIME)
        times = [manual_clock.now_ms + hours * 3_600_000 for hours in range(1, 41)]
        await asyncio.gather(*(dismiss(clocked, user, popup, time_ms) for time_ms in times))
        assert await dismiss(clocked, user, popup, times[0]) == times[-1]
        manual_clock.now_ms = times[-1] - 1
        assert await shown(clocked, user, feature) == []

    async def test_its_category_of_now_counts(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        feature, user = await new_feature(clocked), new_user()
        popup = await new_popup(clocked, feature)
        await dismiss(clocked, user, popup)
        manual_clock.advance(2 * DAY_MS)
        change = FeaturePopup(id=popup.id, category=POPUP_CATEGORY_MULTI_TIME)
        await clocked.catalog.UpdateFeaturePopup(UpdateFeaturePopupRequest(feature_popup=change))
        assert await shown(clocked, user, feature) == [popup.id]

    async def test_it_takes_no_right_to_change_what_is_sold(
        self, served: Served, mongo_url: str
    ) -> None:
        feature, user = await new_feature(served), new_user()
        popup = await new_popup(served, feature)
        key = await make_key(mongo_url, "test_served", "shower", ["catalog.read", "usage.write"])
        async with connected(served.target, key) as shower:
            assert await shown(shower, user, feature) == [popup.id]
            await dismiss(shower, user, popup)
            assert await shown(shower, user, feature) == []
            with refused("SCOPE_MISSING"):
                await new_popup(shower, feature)

    async def test_unknown_popups(self, served: Served) -> None:
        popup = await new_popup(served, await new_feature(served))
        await dismiss(served, new_user(), popup)
        await served.catalog.PurgeFeaturePopup(PurgeFeaturePopupRequest(id=popup.id))
        with refused("RESOURCE_NOT_FOUND"):
            await dismiss(served, new_user(), popup)

    @pytest.mark.parametrize("field", ["user_id", "feature_popup_id"])
    async def test_malformed_ids(self, served: Served, field: str) -> None:
        request = pb.DismissFeaturePopupRequest(user_id=new_user(), feature_popup_id=new_user())
        setattr(request, field, "x")
        with refused("MALFORMED_ID"):
            await served.catalog.DismissFeaturePopup(request)
