"""The SDK of zaaz: credits, wallets and metered usage over gRPC.

    async with ZaazClient("127.0.0.1:50051", api_key) as client:
        wallet = await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))
        async with client.usage_stream("billing-pod-7") as stream:
            await stream.send(UsageEvent(...))

Messages come from the generated packages (`zaaz.wallet.v1.wallet_service_pb2`
and so on); errors are in `zaaz_client.errors`, drawn at its top.
"""

from zaaz_client.api_key import ApiKey, KeyFile
from zaaz_client.client import DEFAULT_TIMEOUT_SECONDS, ZaazClient
from zaaz_client.credit_process import Charge, CreditProcess, CreditProcessSettings
from zaaz_client.errors import (
    AccessRefused,
    BufferFull,
    Contention,
    CreditsRefused,
    DeadlineExceeded,
    FieldViolation,
    HoldEnded,
    InsufficientCredits,
    InternalError,
    InvalidRequest,
    KeyReplaced,
    NotFound,
    OffsetOutOfRange,
    PriceNotFound,
    RequestIdReused,
    ResyncRequired,
    Stalled,
    StreamClosed,
    TooManyWatchers,
    Unavailable,
    UsageKeyReused,
    WalletNotFound,
    WriterFenced,
    ZaazError,
)
from zaaz_client.lists import iterate, pages
from zaaz_client.process_errors import NotAuthorized, UsageNotReported
from zaaz_client.retry import retry_within
from zaaz_client.spool import (
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    SpoolOfAnotherWriter,
    SpoolSettings,
    SpoolStatus,
    WhenFull,
    spooled_events,
)
from zaaz_client.status import from_rpc_error, from_status
from zaaz_client.tls import Tls
from zaaz_client.usage_results import RejectedEvent, RejectedHandler, UsageCounters
from zaaz_client.usage_settings import UsageStreamSettings
from zaaz_client.usage_stream import UsageStream
from zaaz_client.watch import (
    WalletChanged,
    WalletEvent,
    WalletSnapshot,
    WalletUnchanged,
    WalletWatch,
    WatchSettings,
)

__all__ = [
    "DEFAULT_TIMEOUT_SECONDS",
    "AccessRefused",
    "ApiKey",
    "BufferFull",
    "Charge",
    "Contention",
    "CreditProcess",
    "CreditProcessSettings",
    "CreditsRefused",
    "DeadlineExceeded",
    "FieldViolation",
    "HoldEnded",
    "InsufficientCredits",
    "InternalError",
    "InvalidRequest",
    "KeyFile",
    "KeyReplaced",
    "NotAuthorized",
    "NotFound",
    "OffsetOutOfRange",
    "PriceNotFound",
    "RejectedEvent",
    "RejectedHandler",
    "RequestIdReused",
    "ResyncRequired",
    "SpoolDamaged",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "SpoolOfAnotherWriter",
    "SpoolSettings",
    "SpoolStatus",
    "Stalled",
    "StreamClosed",
    "Tls",
    "TooManyWatchers",
    "Unavailable",
    "UsageCounters",
    "UsageKeyReused",
    "UsageNotReported",
    "UsageStream",
    "UsageStreamSettings",
    "WalletChanged",
    "WalletEvent",
    "WalletNotFound",
    "WalletSnapshot",
    "WalletUnchanged",
    "WalletWatch",
    "WatchSettings",
    "WhenFull",
    "WriterFenced",
    "ZaazClient",
    "ZaazError",
    "from_rpc_error",
    "from_status",
    "iterate",
    "pages",
    "retry_within",
    "spooled_events",
]
