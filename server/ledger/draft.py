"""One batch on its way to the database: what it starts from, and what it will write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bson import ObjectId

from server.kernel.errors import DomainError
from server.ledger.alerts import Alert, crossings, expiries
from server.ledger.model import Cause, Entry, Period, Profile, Wallet, Writer
from server.ledger.posting import Applied, HoldChange
from server.ledger.refusals import wallet_not_found
from server.ledger.riders import Document, Rider, RowKey, Rows


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request that took effect: what was asked, and the first result.

    A usage request has neither entry nor wallet: its events' keys answer a replay.
    """

    key: str
    fingerprint: bytes
    entry: Entry | None
    wallet: Wallet | None
    hold: HoldChange | None = None


class HoldRow(NamedTuple):
    """A hold with what became of it, and whose it is."""

    profile: Profile
    change: HoldChange


class PackageNote(NamedTuple):
    """An event of a package: of an entry, or (`entry_id` None) one that moved nothing."""

    id: ObjectId
    profile: Profile
    period: Period
    cause: Cause
    created_ms: int
    sequence: int
    entry_id: ObjectId | None = None
    credits_micros: int = 0

    @staticmethod
    def of(entry: Entry, period: Period) -> "PackageNote":
        """What an entry says of a package."""
        return PackageNote(
            entry.id,
            entry.profile,
            period,
            entry.cause,
            entry.created_ms,
            entry.sequence,
            entry.id,
            entry.signed_micros,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What other transactions have committed already under keys of this batch."""

    requests: Mapping[str, RequestRow] = field(default_factory=dict)
    entries: Mapping[bytes, Entry] = field(default_factory=dict)


class Doubt(NamedTuple):
    """What a refusal rests on. It writes nothing, so no guard and no unique key stands for it."""

    user_id: str
    request_keys: tuple[str, ...]
    entry_ids: tuple[ObjectId, ...]


class RejectedUsage(NamedTuple):
    """A usage event that could not be settled, to be kept with its reason."""

    id: ObjectId
    client_id: str
    user_id: ObjectId
    payload: bytes
    error: DomainError


class Draft:
    """Collects a batch's changes in order, over the states that it starts from.

    Nothing in it has happened until `LedgerStore.write` has committed it; a lost
    draft is thrown away and its jobs are applied to a new one.
    """

    def __init__(
        self,
        wallets: Mapping[str, Wallet],
        writers: Mapping[str, Writer],
        known: Known,
        now_ms: int,
        ended_holds: Mapping[ObjectId, HoldRow] | None = None,
        rows: Rows | None = None,
    ) -> None:
        self.now_ms = now_ms
        self.before = wallets
        self.after: dict[str, Wallet] = {}
        self.entries: list[Entry] = []
        self.requests: dict[str, RequestRow] = {}
        self.writers_before = writers
        self.writers: dict[str, Writer] = {}
        self.rejected: dict[ObjectId, RejectedUsage] = {}
        self.settled_rejections: list[ObjectId] = []
        self.doubts: list[Doubt] = []
        self.holds: dict[ObjectId, HoldRow] = {}
        self.package_notes: list[PackageNote] = []
        self.rows_before: Rows = rows or {}
        self.rows: dict[RowKey, Document] = {}
        self._ended_holds = ended_holds or {}
        self._known = known
        self._keyed: dict[bytes, Entry] = {}

    def time_of(self, wallet: Wallet) -> int:
        """When something happens to this wallet: now, but never before what did last.

        Clocks step back, and two processes' differ; a wallet's entries are in the order of time.
        """
        return max(self.now_ms, wallet.updated_ms)

    def find_wallet(self, user_id: str) -> Wallet | None:
        """The wallet as this batch has left it so far."""
        return self.after.get(user_id) or self.before.get(user_id)

    def wallet(self, user_id: str) -> Wallet:
        """The same; WALLET_NOT_FOUND where there is none."""
        wallet = self.after.get(user_id) or self.before.get(user_id)
        if wallet is None:
            raise wallet_not_found(user_id)
        return wallet

    def writer(self, key: str) -> Writer:
        """The stream writer as this batch has left it so far. `open` has made its row."""
        return self.writers.get(key) or self.writers_before[key]

    def record(self, user_id: str, applied: Applied) -> None:
        """Takes an operation's effect."""
        self.after[user_id] = applied.wallet
        self.entries.extend(applied.entries)
        for change in applied.holds:
            self.holds[change.hold.id] = HoldRow(applied.wallet.profile, change)

    def record_keyed(self, user_id: str, applied: Applied) -> Entry:
        """The same for one whose entry has an id that is derived from its key. Returns it."""
        self.record(user_id, applied)
        entry = applied.entry
        assert entry is not None
        self._keyed[entry.id.binary] = entry
        return entry

    def ridden(self, rider: Rider) -> Mapping[RowKey, Document]:
        """What a rider changes, given its rows as this batch has left them so far."""
        rows = {key: self.rows.get(key, self.rows_before.get(key)) for key in rider.keys}
        return rider.change(rows, self.now_ms)

    def ended_hold(self, user_id: str, hold_id: ObjectId) -> HoldChange | None:
        """What became of a user's hold that is not active; None: there was none."""
        row = self.holds.get(hold_id) or self._ended_holds.get(hold_id)
        if row is None or str(row.profile.user_id) != user_id:
            return None
        return row.change

    def find_entry(self, entry_id: ObjectId) -> Entry | None:
        """The entry under a derived id, if this batch or an earlier transaction has it."""
        return self._keyed.get(entry_id.binary) or self._known.entries.get(entry_id.binary)

    def find_request(self, key: str) -> RequestRow | None:
        """The request under a key, if this batch or an earlier transaction has it."""
        return self.requests.get(key) or self._known.requests.get(key)

    def alerts(self) -> list[Alert]:
        """What users are to be told of, once this is committed."""
        before, now_ms = self.before, self.now_ms
        alerts: list[Alert] = []
        for user_id, wallet in self.after.items():
            if user_id in before:
                alerts += crossings(before[user_id], wallet, now_ms)
        return alerts + expiries(self.entries)

    def contradicts(self, known: Known, versions: Mapping[str, int]) -> bool:
        """Whether a refusal rests on what is not so: a key unknown to it, an outdated wallet.

        `versions` are those of the doubted wallets as they are stored.
        """
        if known.requests.keys() - self._known.requests.keys():
            return True
        if known.entries.keys() - self._known.entries.keys():
            return True
        before = self.before
        return any(
            user_id in before and before[user_id].version != version
            for user_id, version in versions.items()
        )
