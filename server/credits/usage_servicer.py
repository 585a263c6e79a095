"""zaaz.credits.v1.UsageService: between the contract's messages and the ledger."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from bson import ObjectId
from zaaz.credits.v1 import feature_usage_log_pb2 as log_pb
from zaaz.credits.v1 import usage_service_pb2 as pb
from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceServicer

from server.credits.events import EventReader, check_size
from server.credits.feature_usage.resources import FEATURE_USAGE_LOGS
from server.credits.feature_usage.service import FeatureUsageLogs, Kept
from server.credits.rejections import RejectionRoom
from server.credits.stream import UsageStream, event_error
from server.kernel.errors import DomainError, Reason
from server.kernel.ids import parse_id
from server.kernel.paging import PageTokens, page_size
from server.kernel.principal import current_principal
from server.kernel.timestamps import timestamp
from server.ledger.frames import FrameResult, Refused, Settled
from server.ledger.jobs import Request
from server.ledger.reader import KeptUsage, LedgerReader
from server.ledger.service import Ledger
from server.resources.changes import not_found
from server.resources.engine import Resources
from server.rpc.errors import to_status

MAX_PAGE_SIZE = 1_000


class UsageServicer(UsageServiceServicer):
    """Bills usage and keeps interactions, streamed or not. `draining` tells its streams to end."""

    def __init__(
        self,
        ledger: Ledger,
        reader: LedgerReader,
        events: EventReader,
        logs: FeatureUsageLogs,
        room: RejectionRoom,
        resources: Resources,
        page_tokens: PageTokens,
        draining: asyncio.Event,
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._events = events
        self._logs = logs
        self._room = room
        self._resources = resources
        self._page_tokens = page_tokens
        self._draining = draining
        self._streams: dict[str, UsageStream] = {}

    async def IngestUsage(
        self, request_iterator: AsyncIterator[pb.IngestUsageRequest], context: Any
    ) -> AsyncIterator[pb.IngestUsageResponse]:
        """A stream of one writer."""
        first = await anext(request_iterator, None)
        if first is None:
            return
        if first.WhichOneof("request") != "open":
            raise DomainError(Reason.STREAM_NOT_OPEN, "the first message has to be `open`")
        client_id = current_principal().client_id
        writer = await self._ledger.open_writer(client_id, first.open.writer_id)
        stream = UsageStream(client_id, writer, self._ledger, self._events, self._logs, self._room)
        with self._running(writer.key, stream):
            async for answer in stream.answers(request_iterator):
                yield answer

    async def RecordUsage(
        self, request: pb.RecordUsageRequest, context: Any
    ) -> pb.RecordUsageResponse:
        """Events in one call."""
        client_id = current_principal().client_id
        keep = await self._room.is_left(client_id)
        frame = pb.UsageFrame(events=request.events)
        items = await self._events.items(client_id, frame, keep=keep)
        result = await self._ledger.settle(items, request=_request(client_id, request))
        self._room.note(client_id, result)
        return pb.RecordUsageResponse(results=_results(result))

    async def ListRejectedUsage(
        self, request: pb.ListRejectedUsageRequest, context: Any
    ) -> pb.ListRejectedUsageResponse:
        """One page of events that could not be billed, oldest first."""
        client_id = _own_rows()
        query = f"ListRejectedUsage\0{client_id or ''}\0{request.user_id}"
        after = self._page_tokens.read(query, request.page_token)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        page = await self._reader.rejected(client_id, request.user_id, after, size)
        return pb.ListRejectedUsageResponse(
            rejected_usages=[_rejected_message(kept) for kept in page.rows],
            next_page_token=self._page_tokens.next(query, page.cursor),
        )

    async def ReplayRejectedUsage(
        self, request: pb.ReplayRejectedUsageRequest, context: Any
    ) -> pb.ReplayRejectedUsageResponse:
        """Try to bill kept events again."""
        ids = [parse_id("ids", text) for text in request.ids]
        found = await self._reader.rejected_by_id(_own_rows(), ids)
        items = []
        for row_id, (row, came_ms, _) in found.items():
            frame = pb.UsageFrame(events=[pb.UsageEvent.FromString(row.payload)])
            items += await self._events.items(
                row.client_id, frame, keep=True, settles=[row_id], came_ms=came_ms
            )
        results = {}
        if items:
            settled = _results(await self._ledger.settle(items))
            results = dict(zip(found, settled, strict=True))
        return pb.ReplayRejectedUsageResponse(
            results=[
                _placed(place, results.get(row_id) or _not_kept(row_id))
                for place, row_id in enumerate(ids)
            ]
        )

    async def DiscardRejectedUsage(
        self, request: pb.DiscardRejectedUsageRequest, context: Any
    ) -> pb.DiscardRejectedUsageResponse:
        """Give kept events up."""
        ids = [parse_id("ids", text) for text in request.ids]
        discarded = await self._reader.discard_rejected(_own_rows(), ids)
        return pb.DiscardRejectedUsageResponse(discarded=discarded)

    async def RecordFeatureUsage(
        self, request: log_pb.RecordFeatureUsageRequest, context: Any
    ) -> log_pb.RecordFeatureUsageResponse:
        """Interactions in one call."""
        frame = pb.UsageFrame(feature_events=request.events)
        check_size(frame)
        kept = await self._logs.keep(current_principal().client_id, frame)
        return log_pb.RecordFeatureUsageResponse(results=map(_interaction_result, kept))

    async def ListFeatureUsageLogs(
        self, request: log_pb.ListFeatureUsageLogsRequest, context: Any
    ) -> log_pb.ListFeatureUsageLogsResponse:
        """One page of interactions, newest first."""
        client_id = _own_rows()
        own = {} if client_id is None else {"client_id": client_id}
        page = await self._resources.page(FEATURE_USAGE_LOGS, request, own)
        return log_pb.ListFeatureUsageLogsResponse(
            feature_usage_logs=page.messages,
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def GetFeatureUsageLog(
        self, request: log_pb.GetFeatureUsageLogRequest, context: Any
    ) -> log_pb.GetFeatureUsageLogResponse:
        """One interaction."""
        row_id = parse_id("id", request.id)
        found = await self._resources.get(FEATURE_USAGE_LOGS, row_id)
        if _own_rows() not in (None, found.client_id):
            raise not_found(FEATURE_USAGE_LOGS, row_id)
        return log_pb.GetFeatureUsageLogResponse(feature_usage_log=found)

    @contextmanager
    def _running(self, writer_key: str, stream: UsageStream) -> Iterator[None]:
        """Knows the stream while it runs: a later one of its writer ends it, or a drain."""
        other = self._streams.get(writer_key)
        if other is not None and other.epoch > stream.epoch:
            # Opened at once with it, and told of it first.
            stream.fence()
        else:
            self._streams[writer_key] = stream
            if other is not None:
                other.fence()
        draining = asyncio.create_task(self._drain_with(stream))
        try:
            yield
        finally:
            draining.cancel()
            if self._streams.get(writer_key) is stream:
                del self._streams[writer_key]

    async def _drain_with(self, stream: UsageStream) -> None:
        await self._draining.wait()
        stream.drain()


def _own_rows() -> str | None:
    """Whose rejected events and interactions the caller may see: its own, an admin everybody's."""
    principal = current_principal()
    return None if principal.is_admin else principal.client_id


def _request(client_id: str, request: pb.RecordUsageRequest) -> Request | None:
    if not request.request_id:
        return None
    events = [event.SerializeToString(deterministic=True).hex() for event in request.events]
    return Request.of(client_id, request.request_id, ("usage", events))


def _results(result: FrameResult) -> list[pb.RecordUsageResult]:
    return [_result(place, outcome) for place, outcome in enumerate(result.outcomes)]


def _result(place: int, outcome: Settled | Refused) -> pb.RecordUsageResult:
    if isinstance(outcome, Refused):
        return pb.RecordUsageResult(error=event_error(place, outcome))
    entry = outcome.entry
    return pb.RecordUsageResult(
        receipt=pb.UsageReceipt(
            credits_transaction_id=str(entry.id),
            credits_micros=entry.charge.credits_micros if entry.charge else 0,
            shortfall_micros=entry.shortfall_micros,
            balance_after_micros=entry.balance_after_micros,
            duplicate=outcome.duplicate,
        )
    )


def _interaction_result(kept: Kept) -> log_pb.RecordFeatureUsageResult:
    if isinstance(kept, DomainError):
        return log_pb.RecordFeatureUsageResult(error=to_status(kept))
    return log_pb.RecordFeatureUsageResult(feature_usage_log_id=str(kept))


def _placed(place: int, result: pb.RecordUsageResult) -> pb.RecordUsageResult:
    if result.HasField("error"):
        result.error.index = place
    return result


def _not_kept(row_id: ObjectId) -> pb.RecordUsageResult:
    error = DomainError(
        Reason.REJECTED_USAGE_NOT_FOUND,
        f"no rejected usage of this client has the id {row_id}",
        {"id": row_id},
    )
    return _result(0, Refused(error, kept=False))


def _rejected_message(kept: KeptUsage) -> pb.RejectedUsage:
    rejected = kept.rejected
    return pb.RejectedUsage(
        id=str(rejected.id),
        client_id=rejected.client_id,
        event=pb.UsageEvent.FromString(rejected.payload),
        error=to_status(rejected.error),
        created_time=timestamp(kept.created_ms),
        expires_time=timestamp(kept.expires_ms),
    )
