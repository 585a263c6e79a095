"""Feature usage events on their way from the contract's messages to rows."""

from typing import Final, Literal, TypeAlias

from bson import ObjectId
from zaaz.catalog.v1 import feature_endpoint_pb2 as catalog_pb
from zaaz.credits.v1 import feature_usage_log_pb2 as log_pb
from zaaz.credits.v1 import usage_service_pb2 as pb

from server.credits.events import MAX_AGE_MS, MAX_AHEAD_MS, out_of_range
from server.credits.feature_usage.model import FeatureUsage, FindEndpoint, LoggedEndpoint
from server.credits.feature_usage.parts import keep
from server.credits.feature_usage.secrets import redact
from server.credits.pricing import endpoint_not_found
from server.kernel.clock import Clock
from server.kernel.errors import DomainError
from server.kernel.ids import derived_id
from server.kernel.tasks import map_in_slices
from server.kernel.timestamps import from_timestamp
from server.rpc.validation import check

SLICE_EVENTS = 20
"""Events that are read in one go: a millisecond, a hundred when all are as large as can be."""

_PartName: TypeAlias = Literal["params", "query", "payload", "response"]

_PARTS: Final[tuple[tuple[_PartName, int], ...]] = (
    ("params", catalog_pb.CAPTURED_PART_PARAMS),
    ("query", catalog_pb.CAPTURED_PART_QUERY),
    ("payload", catalog_pb.CAPTURED_PART_PAYLOAD),
    ("response", catalog_pb.CAPTURED_PART_RESPONSE),
)


class FeatureUsageReader:
    """Makes rows of events: checked, redacted, cut to size."""

    def __init__(self, find_endpoint: FindEndpoint, clock: Clock) -> None:
        self._find_endpoint = find_endpoint
        self._clock = clock

    async def rows(self, client_id: str, frame: pb.UsageFrame) -> list[FeatureUsage | DomainError]:
        """For each of the frame's feature_events its row, or why it has none. In order.

        FIELD_INVALID, MALFORMED_ID, OCCURRED_TIME_OUT_OF_RANGE, FEATURE_ENDPOINT_NOT_FOUND.
        """
        is_sound = _is_sound(frame)
        now_ms = self._clock()
        times = range(now_ms - MAX_AGE_MS, now_ms + MAX_AHEAD_MS + 1)

        def read(event: log_pb.FeatureUsageEvent) -> FeatureUsage | DomainError:
            try:
                if not is_sound:
                    check(event)
                return self._row(client_id, event, times)
            except DomainError as refusal:
                return refusal

        return await map_in_slices(read, frame.feature_events, SLICE_EVENTS)

    def _row(self, client_id: str, event: log_pb.FeatureUsageEvent, times: range) -> FeatureUsage:
        occurred_ms = from_timestamp(event.occurred_time)
        if occurred_ms not in times:
            raise out_of_range(times)
        endpoint = self._find_endpoint(event.feature_endpoint)
        if endpoint is None:
            raise endpoint_not_found(event.feature_endpoint)
        parts, truncated = _parts(event, endpoint)
        return FeatureUsage(
            # As the CreditsTransaction of the same usage_key has it.
            id=derived_id(client_id, event.user_id, event.usage_key),
            client_id=client_id,
            user_id=ObjectId(event.user_id),
            email=event.email,
            usage_key=event.usage_key,
            feature_endpoint_id=endpoint.id,
            feature_endpoint=event.feature_endpoint,
            # Some put a query, and with it a secret, behind the path.
            endpoint=redact(event.endpoint or endpoint.endpoint),
            method=event.method or endpoint.method,
            code=event.code,
            status=event.status,
            type=event.type,
            parts=parts,
            truncated_parts=truncated,
            occurred_ms=occurred_ms,
        )


def _is_sound(frame: pb.UsageFrame) -> bool:
    """Whether no event of the frame breaks the contract's own rules: one call for all."""
    try:
        check(frame)
    except DomainError:
        return False
    return True


def _parts(
    event: log_pb.FeatureUsageEvent, endpoint: LoggedEndpoint
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What is kept of the parts that the endpoint wants kept, and which of them were cut."""
    kept = {
        name: keep(getattr(event, name))
        for name, part in _PARTS
        if part in endpoint.captured_parts and event.HasField(name)
    }
    texts: dict[str, str] = {name: part.text for name, part in kept.items()}
    return texts, tuple(name for name, part in kept.items() if part.truncated)
