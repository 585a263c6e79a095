"""Watching wallets: every transaction of a wallet is told, in order, or RESYNC_REQUIRED is.

    a commit anywhere -> outbox -> realtime: "something changed" -> read the wallet, once
                                                                 -> all its watchers

That news may be late or lost (another process took the outbox's row, or died
with it), so it only makes things quick; the sweep, which compares the versions
of all watched wallets every second, makes them sure. A watcher is told states and
ranges of sequences, not events: one reading makes up for any number of changes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Final, Protocol

from zaaz.wallet.v1 import wallet_service_pb2 as pb

from server.kernel.clock import Clock
from server.kernel.errors import DomainError, Reason
from server.ledger.messages import wallet_message
from server.ledger.model import Wallet
from server.ledger.refusals import wallet_not_found
from server.wallet.resume_tokens import ResumeTokens, resync_required
from server.wallet.watch import WalletWatch

MAX_WATCHERS: Final = 20_000
"""Streams of one process; one more is TOO_MANY_WATCHERS."""
BOOKMARK_SECONDS: Final = 30.0
"""So long a stream may be silent, and its token grow old, while nothing changes."""
SWEEP_SECONDS: Final = 1.0
"""Between two sweeps: about so late are changes that nobody told this process of."""
SWEEP_WALLETS: Final = 500
"""Wallets compared in one query."""
SWEEP_PAUSE_SECONDS: Final = 0.05
"""Between two such queries: what they cost is bounded, however many wallets are watched."""
READ_WALLETS: Final = 200
"""Wallets read in one query."""
READ_PAUSE_SECONDS: Final = 0.02
"""Between two readings: what happens meanwhile is told as one change."""
WAKE_SLICE: Final = 50
"""Watchers told in one go; then the event loop may look to other work."""

Write = Callable[[pb.WatchWalletResponse], Awaitable[None]]

_log = logging.getLogger(__name__)


class Wallets(Protocol):
    """The ledger's store, as far as watches know it."""

    async def wallets(self, user_ids: Iterable[str]) -> Mapping[str, Wallet]:
        """The wallets of these users, by user; those without one are left out."""
        ...

    async def versions(self, user_ids: Iterable[str]) -> Mapping[str, int]:
        """The versions of these users' wallets, by user."""
        ...


class Listen(Protocol):
    """Hears of wallets, as far as the news goes: it makes no promise."""

    def __call__(self, user_id: str, heard: Callable[[], None]) -> Callable[[], None]:
        """Call `heard` when the wallet changes, until the returned function is called."""
        ...


class WalletWatches:
    """All watches of this process. `read`, `sweep` and `end_with` are its loops."""

    def __init__(
        self,
        wallets: Wallets,
        as_of_now: Callable[[Wallet], Wallet],
        listen: Listen,
        tokens: ResumeTokens,
        clock: Clock,
        *,
        max_watchers: int = MAX_WATCHERS,
        bookmark_seconds: float = BOOKMARK_SECONDS,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._wallets = wallets
        self._as_of_now = as_of_now
        self._listen = listen
        self._tokens = tokens
        self._clock = clock
        self._max_watchers = max_watchers
        self._bookmark_seconds = bookmark_seconds
        self._sweep_seconds = sweep_seconds
        self._watches: dict[str, WalletWatch] = {}
        self._watchers = 0
        self._to_read: dict[WalletWatch, None] = {}
        self._work = asyncio.Event()
        self._is_draining = False

    async def follow(self, user_id: str, resume_token: str, write: Write) -> None:
        """Tell `write` the wallet's state and changes until cancelled.

        WALLET_NOT_FOUND, RESYNC_REQUIRED, TOO_MANY_WATCHERS, DRAINING.
        """
        sequence = self._tokens.read(user_id, resume_token)
        watch = self._join(user_id)
        try:
            await self._refresh(watch)
            await self._tell(watch, sequence, write)
        finally:
            self._leave(watch)

    async def _tell(self, watch: WalletWatch, sequence: int | None, write: Write) -> None:
        self._require_open(watch)
        bookmarks = watch.bookmarks
        if sequence is None:
            sequence = watch.sequence
            await write(watch.snapshot())
        elif sequence > watch.sequence:
            raise resync_required("the wallet is behind the resume token")
        else:
            # Who has missed nothing hears at once that the watch goes on.
            bookmarks -= 1
        while True:
            self._require_open(watch)
            if watch.sequence > sequence:
                response = watch.change_since(sequence)
                sequence = watch.sequence
            elif watch.bookmarks != bookmarks:
                response = watch.nothing_new()
            else:
                await watch.news()
                continue
            bookmarks = watch.bookmarks
            await write(response)

    def _require_open(self, watch: WalletWatch) -> None:
        if watch.failure is not None:
            raise watch.failure()
        if self._is_draining:
            raise DomainError(Reason.DRAINING, "the server is going away: connect to another")

    # Who watches

    def _join(self, user_id: str) -> WalletWatch:
        if self._watchers >= self._max_watchers:
            raise DomainError(
                Reason.TOO_MANY_WATCHERS,
                f"{self._max_watchers} watch on this server: retry later",
                {"limit": self._max_watchers},
            )
        watch = self._watches.get(user_id)
        if watch is None:
            watch = self._watches[user_id] = WalletWatch(user_id)
            self._put_bookmark_off(watch)
            # Before the first reading, so that nothing falls between the two.
            watch.stop_listening = self._listen(user_id, lambda: self._ask_for(watch))
        watch.watchers += 1
        self._watchers += 1
        return watch

    def _leave(self, watch: WalletWatch) -> None:
        watch.watchers -= 1
        self._watchers -= 1
        if not watch.watchers:
            self._take_down(watch)

    def _take_down(self, watch: WalletWatch) -> None:
        watch.stop_listening()
        # Once is enough; and what it holds holds the watch.
        watch.stop_listening = _nothing
        self._to_read.pop(watch, None)
        if self._watches.get(watch.user_id) is watch:
            del self._watches[watch.user_id]

    # Reading

    async def _refresh(self, watch: WalletWatch) -> None:
        """Return once the wallet was read, begun after this call; those who come at once share it.

        Raises what the reading raised.
        """
        reading = watch.next_reading()
        self._ask_for(watch)
        # Who is cancelled does not cancel it for the others.
        failure = await asyncio.shield(reading)
        if failure is not None:
            raise failure

    def _ask_for(self, watch: WalletWatch) -> None:
        self._to_read[watch] = None
        self._work.set()

    async def read(self) -> None:
        """Reads wallets of which there is news or a new watcher, until cancelled."""
        while True:
            await self._work.wait()
            watches = list(islice(self._to_read, READ_WALLETS))
            for watch in watches:
                del self._to_read[watch]
            if not self._to_read:
                self._work.clear()
            await self._read(watches)
            await asyncio.sleep(READ_PAUSE_SECONDS)

    async def _read(self, watches: list[WalletWatch]) -> None:
        waiting = [watch.begin_reading() for watch in watches]
        failure: Exception | None = None
        news: list[WalletWatch] = []
        try:
            wallets = await self._wallets.wallets([watch.user_id for watch in watches])
            for watch in watches:
                if self._take(watch, wallets.get(watch.user_id)):
                    news.append(watch)
        except Exception as error:  # noqa: BLE001  told to those who wait; the sweep asks again
            _log.warning("watched wallets could not be read", exc_info=error)
            failure = error
        for reading in waiting:
            _resolve(reading, failure)
        await _wake(news)

    def _take(self, watch: WalletWatch, wallet: Wallet | None) -> bool:
        """Whether there is news for those who wait."""
        if wallet is None:
            user_id = watch.user_id
            self._fail(watch, lambda: wallet_not_found(user_id))
        elif wallet.sequence < watch.sequence:
            self._fail(watch, lambda: resync_required("the wallet has gone back"))
        else:
            has_changed = wallet.sequence > watch.sequence
            message = wallet_message(self._as_of_now(wallet), self._clock())
            token = self._tokens.make(watch.user_id, wallet.sequence)
            watch.take(message, wallet.version, token)
            if has_changed:
                self._put_bookmark_off(watch)
            return has_changed
        return True

    def _fail(self, watch: WalletWatch, failure: Callable[[], DomainError]) -> None:
        watch.failure = failure
        # Who came while it was read waits for a reading that there will not be.
        _resolve(watch.begin_reading(), None)
        # Who comes from now on begins anew.
        self._take_down(watch)

    # Sweeping

    async def sweep(self) -> None:
        """Finds what nobody told this process of, and gives bookmarks, until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_seconds)
            users = list(self._watches)
            try:
                for start in range(0, len(users), SWEEP_WALLETS):
                    await self._compare(users[start : start + SWEEP_WALLETS])
                    await asyncio.sleep(SWEEP_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001  the next sweep finds it
                _log.warning("watched wallets could not be compared", exc_info=error)

    async def _compare(self, users: list[str]) -> None:
        versions = await self._wallets.versions(users)
        now = asyncio.get_running_loop().time()
        silent: list[WalletWatch] = []
        for user_id in users:
            watch = self._watches.get(user_id)
            if watch is None:
                continue
            if versions.get(user_id) != watch.version:
                self._ask_for(watch)
            elif now >= watch.bookmark_due:
                self._put_bookmark_off(watch)
                watch.bookmark(self._tokens.make(user_id, watch.sequence))
                silent.append(watch)
        await _wake(silent)

    def _put_bookmark_off(self, watch: WalletWatch) -> None:
        watch.bookmark_due = asyncio.get_running_loop().time() + self._bookmark_seconds

    # Going away

    async def end_with(self, draining: asyncio.Event) -> None:
        """Ends every stream when the server goes away, until cancelled."""
        await draining.wait()
        self._is_draining = True
        await _wake(list(self._watches.values()))
        # A loop of the whole server ends when it is told to.
        await asyncio.Event().wait()


async def _wake(watches: Iterable[WalletWatch]) -> None:
    """Have all who wait look again: a slice at a time, so that calls are answered in between."""
    woken = 0
    for watch in watches:
        for waiter in watch.take_waiting():
            if not waiter.done():
                waiter.set_result(None)
            woken += 1
            if woken % WAKE_SLICE == 0:
                await asyncio.sleep(0)


def _resolve(reading: "asyncio.Future[Exception | None] | None", result: Exception | None) -> None:
    if reading is not None:
        reading.set_result(result)


def _nothing() -> None:
    """Stands for what was done already."""
