"""One connection to zaaz, with a typed stub for each service."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from zaaz.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from zaaz.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceStub
from zaaz.credits.v1.credits_process_service_pb2 import AuthorizeUsageRequest
from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceStub
from zaaz.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceStub
from zaaz.ledger.v1.hold_pb2 import DISCONNECT_POLICY_CAPTURE_REPORTED, DisconnectPolicy
from zaaz.subscriptions.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from zaaz.wallet.v1.statement_service_pb2_grpc import StatementServiceStub
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from zaaz_client.api_key import ApiKey, Authorization
from zaaz_client.channel import TypedChannel, connect
from zaaz_client.credit_process import (
    DEFAULT_PROCESS_SETTINGS,
    CreditProcess,
    CreditProcessSettings,
)
from zaaz_client.observing import Telemetry
from zaaz_client.spool.settings import SpoolSettings
from zaaz_client.tls import Tls
from zaaz_client.usage_results import RejectedHandler
from zaaz_client.usage_settings import DEFAULT_SETTINGS, UsageStreamSettings
from zaaz_client.usage_stream import UsageStream
from zaaz_client.watch import DEFAULT_WATCH_SETTINGS, WalletWatch, WatchSettings

if TYPE_CHECKING:
    from zaaz.auth.v1.auth_service_pb2_grpc import AuthServiceAsyncStub
    from zaaz.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceAsyncStub
    from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceAsyncStub
    from zaaz.credits.v1.credits_service_pb2_grpc import CreditsServiceAsyncStub
    from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceAsyncStub
    from zaaz.subscriptions.v1.subscription_service_pb2_grpc import SubscriptionServiceAsyncStub
    from zaaz.wallet.v1.statement_service_pb2_grpc import StatementServiceAsyncStub
    from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceAsyncStub

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
"""Deadline of a unary call that names none."""


@dataclass(frozen=True, slots=True)
class _Open:
    """What an open client has."""

    channel: TypedChannel
    wallets: "WalletServiceAsyncStub"
    credits: "CreditsServiceAsyncStub"
    usage: "UsageServiceAsyncStub"
    auth: "AuthServiceAsyncStub"
    statements: "StatementServiceAsyncStub"
    process: "CreditsProcessServiceAsyncStub"
    catalog: "CatalogServiceAsyncStub"
    offers: "OfferServiceAsyncStub"
    subscriptions: "SubscriptionServiceAsyncStub"

    @classmethod
    def on(cls, channel: TypedChannel) -> "_Open":
        return cls(
            channel,
            WalletServiceStub(channel),
            CreditsServiceStub(channel),
            UsageServiceStub(channel),
            AuthServiceStub(channel),
            StatementServiceStub(channel),
            CreditsProcessServiceStub(channel),
            CatalogServiceStub(channel),
            OfferServiceStub(channel),
            SubscriptionServiceStub(channel),
        )


class ZaazClient:
    """One connection to zaaz; safe to share between the tasks of one event loop.

        async with ZaazClient("127.0.0.1:50051", api_key) as client:
            wallet = await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))

    `target`: host:port, or a gRPC name with its scheme (dns:, unix:).
    `api_key`: the key, or what gives the newest: KeyFile(path), or a function
    that is asked before each call and must be quick. Calls that are refused for
    their key are made again when there is another by then.
    `tls`: None encrypts unless the target is on this machine; True uses the
    system's root certificates, PEM bytes others, a Tls those in files that may
    be replaced, and a certificate of this client's own; False sends the key in
    clear.
    `timeout_seconds`: deadline of unary calls that pass no `timeout`.
    `telemetry`: told of every call, as by zaaz_client.otel.OpenTelemetry().
    Calls raise ZaazError; ValueError is raised here for a key that no header
    could carry. `async with` raises it for a key or certificates that make no
    sense, and OSError for files that cannot be read.
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
        self.target = target
        self._authorization = Authorization(api_key)
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._telemetry = telemetry
        self._open: _Open | None = None

    async def __aenter__(self) -> Self:
        self._authorization.open()
        channel = connect(
            self.target, self._authorization, self._tls, self._timeout_seconds, self._telemetry
        )
        self._open = _Open.on(channel)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel what is still running on it."""
        if self._open is not None:
            connection, self._open = self._open, None
            await connection.channel.close()

    def usage_stream(
        self,
        writer_id: str,
        *,
        on_rejected: RejectedHandler | None = None,
        settings: UsageStreamSettings = DEFAULT_SETTINGS,
        spool: SpoolSettings | None = None,
    ) -> UsageStream:
        """A stream of usage events; `async with` opens it.

        `writer_id`: 1 to 128 printable ASCII characters, unique per client, one
        stream at a time; give it again to go on where it stopped.
        `on_rejected` is called with each event that the server refuses.
        `spool` keeps events on disk until they are acknowledged.
        """
        stream = UsageStream(
            self.channel, writer_id, on_rejected=on_rejected, settings=settings, spool=spool
        )
        if self._telemetry is not None:
            self._telemetry.opened(stream)
        return stream

    def credit_process(
        self,
        user_id: str,
        *,
        feature_endpoint: str = "",
        ai_model: str = "",
        max_input_tokens: int = 0,
        max_output_tokens: int = 0,
        words: int = 0,
        ttl: timedelta | None = None,
        disconnect_policy: "DisconnectPolicy.ValueType" = DISCONNECT_POLICY_CAPTURE_REPORTED,
        labels: Mapping[str, str] | None = None,
        usage_key: str = "",
        settings: CreditProcessSettings = DEFAULT_PROCESS_SETTINGS,
    ) -> CreditProcess:
        """A use that is authorized at `async with` and billed at its end: see CreditProcess.

        `feature_endpoint`, `ai_model`: what is used; one of them, or both.
        `max_input_tokens`, `max_output_tokens`: what it may come to; so much is held.
        `words`: held against the user's limit.
        `ttl`: after how long of silence the hold ends, 1 s to 24 h; None is 5 min.
        `disconnect_policy`: what is billed then.
        `usage_key`: kept with the usage; "hold:" and the hold's id if left out.
        """
        request = AuthorizeUsageRequest(
            request_id=uuid4().hex,
            user_id=user_id,
            feature_endpoint=feature_endpoint,
            ai_model=ai_model,
            max_input_tokens=max_input_tokens,
            max_output_tokens=max_output_tokens,
            words=words,
            disconnect_policy=disconnect_policy,
            labels=labels,
        )
        if ttl is not None:
            request.ttl.FromTimedelta(ttl)
        return CreditProcess(
            self.process, self.usage, request, usage_key=usage_key, settings=settings
        )

    def watch_wallet(
        self,
        user_id: str,
        resume_token: str = "",
        *,
        bookmarks: bool = False,
        settings: WatchSettings = DEFAULT_WATCH_SETTINGS,
    ) -> WalletWatch:
        """A wallet's state and every change of it: `async with`, then `async for`.

        `resume_token`: of an earlier watch of the wallet, to go on after it.
        `bookmarks`: say also that nothing has changed, every 30 s.
        """
        return WalletWatch(
            self.wallets, user_id, resume_token, bookmarks=bookmarks, settings=settings
        )

    @property
    def channel(self) -> TypedChannel:
        """The channel, for stubs of your own. RuntimeError outside `async with`."""
        return self._opened.channel

    @property
    def wallets(self) -> "WalletServiceAsyncStub":
        """WalletService."""
        return self._opened.wallets

    @property
    def credits(self) -> "CreditsServiceAsyncStub":
        """CreditsService."""
        return self._opened.credits

    @property
    def usage(self) -> "UsageServiceAsyncStub":
        """UsageService. `usage_stream` is the comfortable way to its IngestUsage."""
        return self._opened.usage

    @property
    def auth(self) -> "AuthServiceAsyncStub":
        """AuthService."""
        return self._opened.auth

    @property
    def statements(self) -> "StatementServiceAsyncStub":
        """StatementService. `zaaz_client.statements` verifies what it answers with."""
        return self._opened.statements

    @property
    def process(self) -> "CreditsProcessServiceAsyncStub":
        """CreditsProcessService. `credit_process` is the comfortable way to its holds."""
        return self._opened.process

    @property
    def catalog(self) -> "CatalogServiceAsyncStub":
        """CatalogService."""
        return self._opened.catalog

    @property
    def subscriptions(self) -> "SubscriptionServiceAsyncStub":
        """SubscriptionService: which package a user has, since when and until when."""
        return self._opened.subscriptions

    @property
    def offers(self) -> "OfferServiceAsyncStub":
        """OfferService: what is sold, what it would cost, and coupons that are worth credits."""
        return self._opened.offers

    @property
    def _opened(self) -> _Open:
        if self._open is None:
            raise RuntimeError("the client is not open: use `async with ZaazClient(...) as client`")
        return self._open
