"""zaaz.wallet.v1.WalletService: between the contract's messages and the ledger."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.ledger.v1 import wallet_alert_pb2, wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2 as pb
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceServicer

from server.kernel.clock import Clock
from server.kernel.errors import DomainError, FieldViolation, Reason, field_invalid
from server.kernel.paging import PageTokens, page_size
from server.kernel.principal import current_principal
from server.kernel.timestamps import timestamp
from server.ledger.dates import milliseconds
from server.ledger.messages import wallet_message
from server.ledger.model import Wallet
from server.ledger.operations import ChangeSettings
from server.ledger.reader import LedgerReader
from server.ledger.service import Caller, Ledger
from server.ledger.verify import verify
from server.wallet.alerts import WalletAlerts, place
from server.wallet.watches import WalletWatches

MAX_PAGE_SIZE = 500
MAX_ALERTS_PAGE_SIZE = 1_000
SETTINGS = ("overdraft_policy", "low_balance_threshold_micros")
"""What UpdateWallet may change."""


class WalletServicer(WalletServiceServicer):
    """Thin: the ledger owns every wallet."""

    def __init__(
        self,
        ledger: Ledger,
        reader: LedgerReader,
        watches: WalletWatches,
        alerts: WalletAlerts,
        page_tokens: PageTokens,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._watches = watches
        self._alerts = alerts
        self._page_tokens = page_tokens
        self._clock = clock

    async def CreateWallet(
        self, request: pb.CreateWalletRequest, context: Any
    ) -> pb.CreateWalletResponse:
        """Make the user's wallet, or return the one there is."""
        caller = Caller(current_principal().client_id, request.request_id)
        wallet = await self._ledger.open_wallet(caller, request.user_id, request.email)
        return pb.CreateWalletResponse(wallet=self._message(wallet))

    async def ListWalletAlerts(
        self, request: pb.ListWalletAlertsRequest, context: Any
    ) -> pb.ListWalletAlertsResponse:
        """One page of what users should know, newest first."""
        query = f"ListWalletAlerts\0{request.user_id}"
        after = self._page_tokens.read(query, request.page_token)
        size = page_size(request.page_size, MAX_ALERTS_PAGE_SIZE)
        rows = await self._alerts.page(request.user_id, after, size + 1)
        cursor = place(rows[size - 1]) if len(rows) > size else None
        return pb.ListWalletAlertsResponse(
            wallet_alerts=[_alert(row) for row in rows[:size]],
            next_page_token=self._page_tokens.next(query, cursor),
        )

    async def GetWallet(self, request: pb.GetWalletRequest, context: Any) -> pb.GetWalletResponse:
        """The wallet with what is due expired."""
        wallet = await self._reader.wallet(request.user_id)
        answer = pb.GetWalletResponse()
        wallet_message(wallet, self._clock(), answer.wallet)
        return answer

    async def ListWallets(
        self, request: pb.ListWalletsRequest, context: Any
    ) -> pb.ListWalletsResponse:
        """One page of wallets in the order of their making."""
        query = f"ListWallets\0{request.email}"
        after = self._page_tokens.read(query, request.page_token)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        page = await self._reader.wallets(request.email, after, size)
        answer = pb.ListWalletsResponse(next_page_token=self._page_tokens.next(query, page.cursor))
        for wallet in page.rows:
            wallet_message(wallet, self._clock(), answer.wallets.add())
        return answer

    async def UpdateWallet(
        self, request: pb.UpdateWalletRequest, context: Any
    ) -> pb.UpdateWalletResponse:
        """Change settings by the mask, under the etag if there is one."""
        caller = Caller(current_principal().client_id, request.request_id)
        wallet = await self._ledger.change_settings(caller, _change(request))
        return pb.UpdateWalletResponse(wallet=self._message(wallet))

    async def VerifyWallet(
        self, request: pb.VerifyWalletRequest, context: Any
    ) -> pb.VerifyWalletResponse:
        """Recompute the wallet from its entries."""
        wallet = await self._reader.stored_wallet(request.user_id)
        history = self._reader.history(wallet.profile.user_id, wallet.sequence)
        found = await verify(wallet, history)
        differences = [
            pb.WalletDifference(
                sequence=d.sequence, field=d.field, expected=d.expected, actual=d.actual
            )
            for d in found.differences
        ]
        return pb.VerifyWalletResponse(
            differences=differences, transactions_checked=found.entries_checked
        )

    async def WatchWallet(  # type: ignore[override]  # writes by itself: a generator costs more
        self, request: pb.WatchWalletRequest, context: Any
    ) -> None:
        """The wallet's state, then each change of it."""
        await self._watches.follow(request.user_id, request.resume_token, context.write)

    def _message(self, wallet: Wallet) -> wallet_pb2.Wallet:
        return wallet_message(wallet, self._clock())


def _change(request: pb.UpdateWalletRequest) -> ChangeSettings:
    wallet = request.wallet
    if not wallet.user_id:
        raise field_invalid("wallet.user_id", "is required")
    paths = _paths(request.update_mask, wallet)
    if "overdraft_policy" in paths and not wallet.overdraft_policy:
        raise field_invalid("wallet.overdraft_policy", "must be a policy other than UNSPECIFIED")
    return ChangeSettings(
        wallet.user_id,
        wallet.overdraft_policy if "overdraft_policy" in paths else None,
        wallet.low_balance_threshold_micros if "low_balance_threshold_micros" in paths else None,
        _settings_version(wallet.etag),
    )


def _paths(mask: FieldMask, wallet: wallet_pb2.Wallet) -> Iterable[str]:
    """What to change; AIP-134: without a mask, the settings that are set."""
    paths = list(mask.paths) or [name for name in SETTINGS if getattr(wallet, name)]
    unknown = next((path for path in paths if path not in SETTINGS), None)
    if unknown is not None or not paths:
        description = f"must name some of: {', '.join(SETTINGS)}"
        raise DomainError(
            Reason.UPDATE_MASK_INVALID,
            f"update_mask {description}",
            {"path": unknown or ""},
            violations=[FieldViolation("update_mask", description)],
        )
    return paths


def _settings_version(etag: str) -> int | None:
    if not etag:
        return None
    # No settings have version -1: an etag that none ever had matches none.
    return int(etag) if etag.isascii() and etag.isdigit() else -1


def _alert(row: Mapping[str, Any]) -> wallet_alert_pb2.WalletAlert:
    grant_id, package_id = row["grant_id"], row.get("package_id")
    return wallet_alert_pb2.WalletAlert(
        id=str(row["_id"]),
        kind=row["kind"],
        user_id=str(row["user_id"]),
        user_wallet_id=str(row["user_wallet_id"]),
        sequence=row["sequence"],
        credits_micros=row["credits_micros"],
        grant_id="" if grant_id is None else str(grant_id),
        days=row["days"],
        package_id="" if package_id is None else str(package_id),
        time=timestamp(milliseconds(row["time"])),
        expires_time=timestamp(milliseconds(row["expires_time"])),
    )
