"""The SDK for synchronous code: the same client, its event loop in a thread of its own.

    with BlockingZaazClient("127.0.0.1:50051", api_key) as client:
        client.credits.ConsumeCredits(ConsumeCreditsRequest(...))

Any number of threads may share a client. A process that forks makes one in each
child, after the fork: gRPC and the thread do not come along.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import grpc
from zaaz.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from zaaz.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceStub
from zaaz.credits.v1.credits_process_service_pb2 import CostEstimate
from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceStub
from zaaz.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from zaaz.credits.v1.feature_usage_log_pb2 import FeatureUsageEvent
from zaaz.credits.v1.usage_service_pb2 import UsageEvent
from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceStub
from zaaz.ledger.v1.hold_pb2 import Hold
from zaaz.subscriptions.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from zaaz.wallet.v1.statement_service_pb2_grpc import StatementServiceStub
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from zaaz_client.api_key import ApiKey
from zaaz_client.blocking_channel import BlockingChannel
from zaaz_client.client import DEFAULT_TIMEOUT_SECONDS, ZaazClient
from zaaz_client.credit_process import Charge, CreditProcess
from zaaz_client.loop_thread import LoopThread
from zaaz_client.observing import Telemetry
from zaaz_client.spool.spool import SpoolStatus
from zaaz_client.tls import Tls
from zaaz_client.usage_results import RejectedEvent, UsageCounters
from zaaz_client.usage_stream import UsageStream
from zaaz_client.watch import WalletEvent, WalletWatch
from zaaz_client.wire import StreamEvent

SEND_BATCH_EVENTS: Final = 500
"""`send_many` hands so many over at a time."""

_T = TypeVar("_T")
_Inner = TypeVar("_Inner")
_Outer = TypeVar("_Outer")
_P = ParamSpec("_P")


class BlockingUsageStream:
    """A UsageStream whose methods wait. `send_many` costs least; any thread may send."""

    def __init__(self, thread: LoopThread, stream: UsageStream) -> None:
        self._thread = thread
        self._stream = stream

    @property
    def writer_id(self) -> str:
        """Whose events they are."""
        return self._stream.writer_id

    @property
    def next_offset(self) -> int:
        """How many events this writer has sent in all."""
        return self._stream.next_offset

    @property
    def acknowledged_offset(self) -> int:
        """Every event before it is durable."""
        return self._stream.acknowledged_offset

    @property
    def connected(self) -> bool:
        """Whether the writer is open on a server right now."""
        return self._stream.connected

    @property
    def counters(self) -> UsageCounters:
        """What became of the events so far."""
        return self._stream.counters

    @property
    def rejected_events(self) -> deque[RejectedEvent]:
        """The latest refused events, oldest first."""
        return self._stream.rejected_events

    @property
    def spool_status(self) -> SpoolStatus | None:
        """How the spool is; None without one, and before it is open."""
        return self._stream.spool_status

    def unacknowledged_events(self) -> list[StreamEvent]:
        """Events that were sent and not acknowledged, in order."""

        async def work() -> list[StreamEvent]:
            return self._stream.unacknowledged_events()

        return self._thread.run(work)

    def send(self, event: UsageEvent) -> int:
        """Hand an event over and return its offset; waits while the buffer is full."""
        return self._thread.run(lambda: self._stream.send(event))

    def send_nowait(self, event: UsageEvent) -> int:
        """As send, but raises BufferFull rather than wait."""

        async def work() -> int:
            return self._stream.send_nowait(event)

        return self._thread.run(work)

    def send_feature_usage(self, event: FeatureUsageEvent) -> int:
        """As send, for an interaction to be kept in the feature usage log."""
        return self._thread.run(lambda: self._stream.send_feature_usage(event))

    def send_many(self, events: Iterable[StreamEvent]) -> int:
        """Hand events over in order; returns the offset after the last.

        `events` is read in this thread, so it may use the client too.
        """
        remaining = iter(events)
        while batch := list(islice(remaining, SEND_BATCH_EVENTS)):
            self._thread.run(lambda batch=batch: self._stream.send_many(batch))  # type: ignore[misc]
        return self.next_offset

    def flush(self) -> None:
        """Wait until every event sent so far is acknowledged."""
        self._thread.run(self._stream.flush)

    def close(self) -> None:
        """Flush, then end the stream."""
        self._thread.run(self._stream.close)

    def __enter__(self) -> Self:
        self._thread.run(self._stream.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._thread.run(lambda: self._stream.__aexit__(exc_type, exc_val, exc_tb))


class BlockingCreditProcess:
    """A CreditProcess for `with`. Its hold is kept alive while the block runs."""

    def __init__(self, thread: LoopThread, process: CreditProcess) -> None:
        self._thread = thread
        self._process = process
        self.report = process.report
        """Say what was used so far, all in all: the last report counts."""
        self.release = process.release
        """Bill nothing."""

    @property
    def hold(self) -> Hold:
        """The hold as it was placed."""
        return self._process.hold

    @property
    def estimate(self) -> CostEstimate:
        """What it costs at most."""
        return self._process.estimate

    @property
    def charge(self) -> Charge | None:
        """What it came to; None before the end, and when nothing was billed."""
        return self._process.charge

    @property
    def cost_micros(self) -> int:
        """What it came to, in micro-credits."""
        return self._process.cost_micros

    def __enter__(self) -> Self:
        self._thread.run(self._process.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._thread.run(lambda: self._process.__aexit__(exc_type, exc_val, exc_tb))


class BlockingWalletWatch(Iterator[WalletEvent]):
    """A WalletWatch for `with` and `for`. Another thread may close it."""

    def __init__(self, thread: LoopThread, watch: WalletWatch) -> None:
        self._thread = thread
        self._watch = watch

    @property
    def resume_token(self) -> str:
        """Goes on after the event that came last."""
        return self._watch.resume_token

    def close(self) -> None:
        """No more events. Idempotent."""

        async def work() -> None:
            self._watch.close()

        self._thread.run(work)

    def __next__(self) -> WalletEvent:
        try:
            return self._thread.run(self._watch.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()


def _blocking(
    make: Callable[Concatenate[ZaazClient, _P], _Inner],
    wrap: Callable[[LoopThread, _Inner], _Outer],
) -> Callable[Concatenate["BlockingZaazClient", _P], _Outer]:
    """A method of ZaazClient, with the same arguments, whose result is wrapped."""

    def method(client: "BlockingZaazClient", /, *args: _P.args, **kwargs: _P.kwargs) -> _Outer:
        async def work() -> _Inner:  # some of them may only be made where a loop runs
            return make(client._client, *args, **kwargs)

        return wrap(client._thread, client._thread.run(work))

    method.__doc__ = make.__doc__
    return method


class BlockingZaazClient:
    """ZaazClient for synchronous code: the same arguments, errors and deadlines.

    Safe to share between threads. Everything waits for its result; Ctrl-C while
    it does cancels the call.
    """

    def __init__(
        self,
        target: str,
        api_key: ApiKey,
        *,
        tls: bool | bytes | Tls | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._client = ZaazClient(
            target, api_key, tls=tls, timeout_seconds=timeout_seconds, telemetry=telemetry
        )
        self._running: LoopThread | None = None
        self._stubs: dict[Any, Any] = {}

    def __enter__(self) -> Self:
        thread = LoopThread(f"zaaz client {self._client.target}")
        try:
            thread.run(self._client.__aenter__)
        except BaseException:
            thread.stop()
            raise
        self._running = thread
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. What other threads wait for raises StreamClosed. Idempotent."""
        if self._running is None:
            return
        thread, self._running = self._running, None
        self._stubs.clear()
        try:
            thread.run(self._client.close)
        finally:
            thread.stop()

    usage_stream = _blocking(ZaazClient.usage_stream, BlockingUsageStream)
    credit_process = _blocking(ZaazClient.credit_process, BlockingCreditProcess)
    watch_wallet = _blocking(ZaazClient.watch_wallet, BlockingWalletWatch)

    def run(self, work: Callable[[ZaazClient], Awaitable[_T]]) -> _T:
        """The result of what `work` does with the asynchronous client."""

        async def awaited() -> _T:
            return await work(self._client)

        return self._thread.run(awaited)

    def each(self, work: Callable[[ZaazClient], AsyncIterator[_T]]) -> Iterator[_T]:
        """What an asynchronous iterator yields, as of a list.

        client.each(lambda zaaz: iterate(zaaz.wallets.ListWallets, ListWalletsRequest()))
        """

        async def begin() -> AsyncIterator[_T]:
            return aiter(work(self._client))

        async def take() -> _T:
            return await anext(found)

        async def end() -> None:
            close = getattr(found, "aclose", None)
            if close is not None:
                await close()

        found = self._thread.run(begin)
        try:
            while True:
                try:
                    yield self._thread.run(take)
                except StopAsyncIteration:
                    return
        finally:
            if self._running is not None:
                self._running.run(end)

    @property
    def wallets(self) -> WalletServiceStub:
        """WalletService."""
        return self._stub(WalletServiceStub)

    @property
    def credits(self) -> CreditsServiceStub:
        """CreditsService."""
        return self._stub(CreditsServiceStub)

    @property
    def usage(self) -> UsageServiceStub:
        """UsageService; `usage_stream` for its IngestUsage."""
        return self._stub(UsageServiceStub)

    @property
    def auth(self) -> AuthServiceStub:
        """AuthService."""
        return self._stub(AuthServiceStub)

    @property
    def statements(self) -> StatementServiceStub:
        """StatementService."""
        return self._stub(StatementServiceStub)

    @property
    def process(self) -> CreditsProcessServiceStub:
        """CreditsProcessService; `credit_process` for its holds."""
        return self._stub(CreditsProcessServiceStub)

    @property
    def catalog(self) -> CatalogServiceStub:
        """CatalogService."""
        return self._stub(CatalogServiceStub)

    @property
    def offers(self) -> OfferServiceStub:
        """OfferService: what is for sale."""
        return self._stub(OfferServiceStub)

    @property
    def subscriptions(self) -> SubscriptionServiceStub:
        """SubscriptionService."""
        return self._stub(SubscriptionServiceStub)

    @property
    def _thread(self) -> LoopThread:
        if self._running is None:
            raise RuntimeError("the client is not open: use `with BlockingZaazClient(...)`")
        return self._running

    def _stub(self, kind: Callable[[grpc.Channel], _T]) -> _T:
        if kind not in self._stubs:
            thread = self._thread
            self._stubs[kind] = kind(BlockingChannel(self._client.channel, thread))
        stub: _T = self._stubs[kind]
        return stub
