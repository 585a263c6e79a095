"""Popups for users: the RPCs that show them and put them away."""

from collections.abc import Iterable
from typing import Any, Final

from zaaz.catalog.v1 import feature_popup_display_pb2 as pb
from zaaz.catalog.v1.feature_popup_pb2 import POPUP_CATEGORY_MULTI_TIME, FeaturePopup

from server.catalog.packages.resources import FEATURE_POPUPS
from server.catalog.popups.model import (
    DEFAULT_HIDDEN_MS,
    MAX_HIDDEN_MS,
    is_hidden,
    is_switched_on,
)
from server.catalog.popups.store import PopupStore
from server.kernel.clock import Clock
from server.kernel.errors import field_invalid
from server.kernel.ids import parse_id
from server.kernel.timestamps import storable_time, timestamp
from server.resources.codec import Codec
from server.resources.engine import MAX_PAGE_BYTES, Resources

DEFAULT_LIMIT: Final = 20
_POPUPS: Final = Codec(FeaturePopup)


class PopupsServicer:
    """Its parts of zaaz.catalog.v1.CatalogService."""

    def __init__(self, resources: Resources, store: PopupStore, clock: Clock) -> None:
        self._popup_rows = resources
        self._popups = store
        self._popup_clock = clock

    async def GetFeaturePopups(
        self, request: pb.GetFeaturePopupsRequest, context: Any
    ) -> pb.GetFeaturePopupsResponse:
        """What a user is to see now, those of higher priority first."""
        user_id = parse_id("user_id", request.user_id)
        feature_id = await self._popups.feature_of(request.feature) if request.feature else None
        if request.feature and feature_id is None:
            return pb.GetFeaturePopupsResponse()
        popups = await self._popups.active(feature_id)
        features = await self._popups.with_ancestors({one.feature_id for one in popups})
        dismissed = await self._popups.dismissed(user_id, [one.id for one in popups])
        now_ms = self._popup_clock()
        shown = [
            one.id
            for one in popups
            if is_switched_on(one.feature_id, features) and not is_hidden(one, dismissed, now_ms)
        ]
        rows = await self._popups.rows(shown[: request.limit or DEFAULT_LIMIT])
        return pb.GetFeaturePopupsResponse(feature_popups=_fitting(map(_POPUPS.decode, rows)))

    async def DismissFeaturePopup(
        self, request: pb.DismissFeaturePopupRequest, context: Any
    ) -> pb.DismissFeaturePopupResponse:
        """Hide a popup from a user: for ever, or for a time. Of two times the later one counts."""
        user_id = parse_id("user_id", request.user_id)
        popup_id = parse_id("feature_popup_id", request.feature_popup_id)
        until_ms = self._until(request)
        popup = await self._popup_rows.get(FEATURE_POPUPS, popup_id)
        hidden_ms = await self._popups.dismiss(user_id, popup_id, until_ms)
        if popup.category != POPUP_CATEGORY_MULTI_TIME:
            return pb.DismissFeaturePopupResponse()
        return pb.DismissFeaturePopupResponse(hidden_until_time=timestamp(hidden_ms))

    def _until(self, request: pb.DismissFeaturePopupRequest) -> int:
        now_ms = self._popup_clock()
        if not request.HasField("hide_until_time"):
            return now_ms + DEFAULT_HIDDEN_MS
        until_ms = storable_time("hide_until_time", request.hide_until_time)
        if until_ms > now_ms + MAX_HIDDEN_MS:
            raise field_invalid("hide_until_time", "must be within a year")
        return until_ms


def _fitting(popups: Iterable[FeaturePopup]) -> list[FeaturePopup]:
    """As many of the first as a client takes in one message."""
    fitting: list[FeaturePopup] = []
    left = MAX_PAGE_BYTES
    for popup in popups:
        left -= popup.ByteSize()
        if left < 0:
            break
        fitting.append(popup)
    return fitting
