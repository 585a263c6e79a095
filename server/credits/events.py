"""Usage events on their way from the contract's messages to the ledger, and back when refused."""

from collections.abc import Container, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Protocol

from bson import ObjectId
from zaaz.credits.v1 import usage_service_pb2 as pb

from server.credits.freshness import Freshness, rests_on_books
from server.credits.pricing import Pricing, charge_at
from server.kernel.clock import DAY_MS, Clock, iso
from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.ids import derived_id
from server.kernel.tasks import map_in_slices
from server.kernel.timestamps import from_timestamp
from server.ledger.draft import RejectedUsage
from server.ledger.frames import UsageItem
from server.ledger.hold_service import KnownHold
from server.ledger.model import Charge, Tokens, Usage
from server.ledger.operations import Use
from server.ledger.refusals import hold_not_found
from server.rpc.validation import check

MAX_FRAME_EVENTS = 1_000
SLICE_EVENTS = 100
"""Events that are priced in one go, which is about a millisecond."""

MAX_AGE_MS = 35 * DAY_MS
"""How late usage may come: a month's billing, and some days to notice."""

MAX_AHEAD_MS = 5 * 60 * 1_000
"""How far a partner's clock may run ahead."""


class Holds(Protocol):
    """The ledger's port to what was set aside."""

    async def of_client(self, client_id: str, hold_ids: Iterable[str]) -> dict[str, KnownHold]:
        """Those of the holds that are this client's, by their ids."""
        ...


class EventReader:
    """Prices events by what was in force and makes ledger items of them."""

    def __init__(self, pricing: Pricing, holds: Holds, freshness: Freshness, clock: Clock) -> None:
        self._pricing = pricing
        self._holds = holds
        self._freshness = freshness
        self._clock = clock

    async def items(
        self,
        client_id: str,
        frame: pb.UsageFrame,
        *,
        keep: bool,
        settles: Sequence[ObjectId] = (),
        came_ms: int | None = None,
    ) -> list[UsageItem]:
        """An item for each of the frame's `events`, in order. FRAME_SIZE_INVALID.

        `keep`: refused events are to be kept, but for those that break the
        contract's own rules. `settles`: the kept rows that they come from, and
        `came_ms`: when those came (None: now), so that none grows too old by waiting.
        """
        check_size(frame)
        events = frame.events
        broken = await _broken(frame)
        held = await self._held(client_id, events, broken)
        now_ms = self._clock()
        oldest_ms = (now_ms if came_ms is None else came_ms) - MAX_AGE_MS
        times = range(oldest_ms, now_ms + MAX_AHEAD_MS + 1)

        def item(place: int) -> UsageItem:
            error = broken.get(place)
            if error is not None:
                return UsageItem(None, error, None)
            event = events[place]
            keeper = partial(rejected_row, client_id, event) if keep else None
            settled = settles[place] if settles else None
            try:
                use = _use(client_id, event, self._pricing, times, held)
            except DomainError as refusal:
                return UsageItem(None, refusal, keeper, settled)
            return UsageItem(use, None, keeper, settled)

        items = await map_in_slices(item, range(len(events)), SLICE_EVENTS)
        refused = [place for place, made in enumerate(items) if rests_on_books(made.refusal)]
        if refused:
            await self._freshness.renew()
            for place in refused:
                items[place] = item(place)
        return items

    async def _held(
        self, client_id: str, events: Sequence[pb.UsageEvent], broken: Container[int]
    ) -> dict[str, KnownHold]:
        named = {
            event.hold_id
            for place, event in enumerate(events)
            if event.hold_id and place not in broken
        }
        return await self._holds.of_client(client_id, named) if named else {}


def frame_size(frame: pb.UsageFrame) -> int:
    """How many events the frame has, of both kinds."""
    return len(frame.events) + len(frame.feature_events)


def check_size(frame: pb.UsageFrame) -> None:
    """FRAME_SIZE_INVALID for a frame of no events, or of too many."""
    size = frame_size(frame)
    if not 1 <= size <= MAX_FRAME_EVENTS:
        raise DomainError(
            Reason.FRAME_SIZE_INVALID,
            f"1 to {MAX_FRAME_EVENTS} events are taken at a time",
            {"events": size, "limit": MAX_FRAME_EVENTS},
        )


def rejected_row(client_id: str, event: pb.UsageEvent, error: DomainError) -> RejectedUsage:
    """The row that keeps a refused event; the same for the same event, however often refused."""
    payload = event.SerializeToString(deterministic=True)
    digest = blake2b(payload, digest_size=16).hexdigest()
    row_id = derived_id("rejected", client_id, event.user_id, digest)
    return RejectedUsage(row_id, client_id, ObjectId(event.user_id), payload, error)


async def _broken(frame: pb.UsageFrame) -> dict[int, DomainError]:
    """The events that break the contract's own rules, by their place."""
    try:
        check(frame)
    except DomainError:
        refusals = await map_in_slices(_refusal, frame.events, SLICE_EVENTS)
        return {place: error for place, error in enumerate(refusals) if error is not None}
    return {}


def _refusal(event: pb.UsageEvent) -> DomainError | None:
    try:
        check(event)
    except DomainError as error:
        return error
    return None


def _use(
    client_id: str,
    event: pb.UsageEvent,
    pricing: Pricing,
    times: range,
    held: Mapping[str, KnownHold],
) -> Use:
    usage_key, user_id, ai_model = event.usage_key, event.user_id, event.ai_model
    occurred_ms = from_timestamp(event.occurred_time)
    usage = Usage(
        usage_key,
        event.feature_endpoint,
        ai_model,
        event.input_tokens,
        event.output_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        occurred_ms,
        # Asking for the keys of an empty map costs as much as all the other fields.
        dict(event.labels) if len(event.labels) else None,
    )
    if occurred_ms not in times:
        raise out_of_range(times)
    if not ai_model and not usage.feature_endpoint:
        raise field_invalid("ai_model", "is required where there is no feature_endpoint")
    use_id = derived_id(client_id, user_id, usage_key)
    if not event.hold_id:
        charge = pricing.charge(*usage[1:8])
        return Use(use_id, user_id, client_id, usage, charge)
    hold = held.get(event.hold_id)
    if hold is None:
        raise hold_not_found(event.hold_id)
    if (hold.feature_endpoint, hold.ai_model) == (usage.feature_endpoint, ai_model):
        held_charge = charge_at(hold.prices, Tokens(*usage[3:7]))
        charge = _late_charge(usage, pricing) or held_charge
    else:
        # Something else was used than was asked for: nothing was pinned for it.
        charge = held_charge = pricing.charge(*usage[1:8])
    return Use(use_id, user_id, client_id, usage, charge, ObjectId(event.hold_id), held_charge)


def _late_charge(usage: Usage, pricing: Pricing) -> Charge | None:
    """What a use costs whose hold was given up. None: its prices are gone since."""
    try:
        return pricing.charge(*usage[1:8])
    except DomainError:
        return None


def out_of_range(times: range) -> DomainError:
    """OCCURRED_TIME_OUT_OF_RANGE: what the first and the last of `times` are."""
    oldest, newest = iso(times[0]), iso(times[-1])
    return DomainError(
        Reason.OCCURRED_TIME_OUT_OF_RANGE,
        f"occurred_time must be from {oldest} to {newest}",
        {"oldest": oldest, "newest": newest},
    )
