"""Watching a wallet: its state, then every change of it, through whatever happens."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1.wallet_service_pb2 import (
    WalletChange,
    WatchWalletRequest,
    WatchWalletResponse,
)

from zaaz_client.backoff import Backoff
from zaaz_client.errors import (
    InternalError,
    ResyncRequired,
    Stalled,
    StreamClosed,
    Unavailable,
    ZaazError,
)

if TYPE_CHECKING:
    from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceAsyncStub

MAX_DEFECTIVE_TRIES: Final = 20
"""Tries without a message from a server that answers, but with INTERNAL."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WalletSnapshot:
    """The wallet as it is. What was known of it before is void."""

    wallet: Wallet
    resynced: bool
    """Whether it stands for changes that could not be told one after the other."""


@dataclass(frozen=True, slots=True)
class WalletChanged:
    """The transactions `first_sequence` to `sequence`, and the wallet's state after the last."""

    first_sequence: int
    sequence: int
    credits_micros: int
    held_micros: int
    available_micros: int
    debt_micros: int
    updated_time: datetime


@dataclass(frozen=True, slots=True)
class WalletUnchanged:
    """Nothing has happened since `sequence`; the resume token is fresh."""

    sequence: int


WalletEvent = WalletSnapshot | WalletChanged | WalletUnchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Times of a watch. ValueError for what cannot work."""

    silence_timeout_seconds: float = 90.0
    """The call is made again after so long without a message; a server sends one every 30 s."""
    stall_timeout_seconds: float | None = None
    """Stalled is raised when no server was heard of for so long. None: never."""
    min_backoff_seconds: float = 0.1
    """Bound of the first wait before the call is made again; doubles each time."""
    max_backoff_seconds: float = 5.0
    """Where it stops doubling."""

    def __post_init__(self) -> None:
        for name in ("silence_timeout_seconds", "min_backoff_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")
        if self.stall_timeout_seconds is not None and self.stall_timeout_seconds <= 0:
            raise ValueError("stall_timeout_seconds must be more than 0, or None")
        if self.max_backoff_seconds < self.min_backoff_seconds:
            raise ValueError("max_backoff_seconds must be at least min_backoff_seconds")


DEFAULT_WATCH_SETTINGS: Final = WatchSettings()


class WalletWatch(AbstractAsyncContextManager["WalletWatch"], AsyncIterator[WalletEvent]):
    """A wallet's events in order, nothing missed and nothing twice.

        async with client.watch_wallet(user_id) as events:
            async for event in events:
                ...

    The first event is a WalletSnapshot, unless a resume token says where to go
    on. Broken connections, restarts and drains are gone through unnoticed: each
    WalletChanged begins where the event before ended. Where that cannot be (a
    token too old, a database set back), a WalletSnapshot with `resynced` follows.
    What ends the watch for good (WalletNotFound, AccessRefused, ...) is raised.

    For one task at a time. A cancelled wait, as by asyncio.timeout, loses nothing.
    """

    def __init__(
        self,
        wallets: "WalletServiceAsyncStub",
        user_id: str,
        resume_token: str = "",
        *,
        bookmarks: bool = False,
        settings: WatchSettings = DEFAULT_WATCH_SETTINGS,
    ) -> None:
        self.user_id = user_id
        self._wallets = wallets
        self._token = resume_token
        self._bookmarks = bookmarks
        self._settings = settings
        self._backoff = Backoff(settings.min_backoff_seconds, settings.max_backoff_seconds)
        self._call: Any = None
        self._closed = False
        self._sequence: int | None = None
        self._resynced = False
        self._lost_since: float | None = None

    @property
    def resume_token(self) -> str:
        """Goes on after the event that came last: keep it once that event is dealt with.

        Good for 7 days, also when nothing happens as long as the watch runs.
        """
        return self._token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """No more events. Idempotent."""
        self._closed = True
        self._hang_up()

    async def __anext__(self) -> WalletEvent:
        """The next event. Raises what ended the watch for good."""
        while not self._closed:
            try:
                response = await self._read()
            except ZaazError as error:
                if not self._closed:  # while this waited
                    await self._survive(error)
            else:
                event = self._taken(response)
                if event is not None:
                    return event
        raise StopAsyncIteration

    # The call

    async def _read(self) -> WatchWalletResponse:
        """The next message of the call, which is made if there is none."""
        try:
            if self._call is None:
                self._call = self._wallets.WatchWallet(
                    WatchWalletRequest(user_id=self.user_id, resume_token=self._token)
                )
            async with asyncio.timeout(self._settings.silence_timeout_seconds):
                response = await self._call.read()
        except TimeoutError:
            self._hang_up()
            limit = self._settings.silence_timeout_seconds
            raise Unavailable(f"the server was silent for {limit:g} s") from None
        except grpc.aio.UsageError as error:
            self._hang_up()
            raise StreamClosed("the client is closed") from error
        except BaseException as error:
            # A cancelled read ends its call; the next one goes on from the token.
            self._hang_up()
            if isinstance(error, asyncio.CancelledError) and not _is_cancelled():
                raise StreamClosed("the client was closed") from error
            raise
        if response is grpc.aio.EOF:
            self._hang_up()
            raise Unavailable("the server ended the stream")
        assert isinstance(response, WatchWalletResponse)
        return response

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()  # grpc.aio never collects a call that was left alone
            self._call = None

    async def _survive(self, error: ZaazError) -> None:
        """Return when the call is to be made again; raise what makes that pointless."""
        if isinstance(error, ResyncRequired) and self._token:
            _log.warning("wallet %s: %s; taking a snapshot", self.user_id, error)
            self._begin_anew()
            return
        defective = isinstance(error, InternalError)
        if defective and self._backoff.tries >= MAX_DEFECTIVE_TRIES:
            raise error
        if not (error.retryable or isinstance(error, ResyncRequired)):
            raise error
        now = asyncio.get_running_loop().time()
        if self._lost_since is None:
            self._lost_since = now
            _log.warning("wallet %s: %s; watching again", self.user_id, error)
        limit = self._settings.stall_timeout_seconds
        if limit is not None and now - self._lost_since >= limit:
            raise Stalled(f"no server was heard of for {limit:g} s: {error}") from error
        await asyncio.sleep(self._backoff.next_delay(error.retry_delay))

    def _begin_anew(self) -> None:
        self._token, self._sequence, self._resynced = "", None, True

    # Its messages

    def _taken(self, response: WatchWalletResponse) -> WalletEvent | None:
        """What the caller is told of a message; None of one that is not for it."""
        self._backoff.reset()
        self._lost_since = None
        match response.WhichOneof("event"):
            case "snapshot":
                event: WalletEvent = WalletSnapshot(response.snapshot, self._resynced)
                self._resynced = False
                self._sequence = response.snapshot.sequence
            case "change" if self._follows(response.change.first_sequence - 1):
                event = _changed(response.change)
                self._sequence = event.sequence
            case "bookmark" if self._follows(response.bookmark.sequence):
                event = WalletUnchanged(response.bookmark.sequence)
                self._sequence = event.sequence
            case "change" | "bookmark":
                _log.error("wallet %s: a message does not follow the last", self.user_id)
                self._hang_up()
                self._begin_anew()
                return None
            case _:  # of a newer server
                return None
        self._token = response.resume_token
        return None if isinstance(event, WalletUnchanged) and not self._bookmarks else event

    def _follows(self, sequence: int) -> bool:
        """Whether a message that begins after `sequence` leaves nothing out."""
        return self._sequence is None or self._sequence == sequence


def _changed(change: WalletChange) -> WalletChanged:
    return WalletChanged(
        change.first_sequence,
        change.sequence,
        change.credits_micros,
        change.held_micros,
        change.available_micros,
        change.debt_micros,
        change.updated_time.ToDatetime(UTC),
    )


def _is_cancelled() -> bool:
    """Whether it is the caller's task that is cancelled, and not the call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
