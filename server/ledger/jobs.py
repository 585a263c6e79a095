"""What waits in the committer's queue, and single operations of that kind.

A job is applied to a draft, perhaps several times (a lost transaction is
applied again to a fresh one), and answered once, after the commit.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

import orjson
from bson import ObjectId

from server.kernel.errors import DomainError, Reason
from server.ledger import apply, holds, packages
from server.ledger.draft import Doubt, Draft, RequestRow
from server.ledger.expiry import expire
from server.ledger.model import Entry, Profile, Wallet, new_wallet
from server.ledger.operations import (
    AddGrant,
    CaptureHold,
    ChangeSettings,
    Consume,
    EndPackage,
    ExtendHold,
    OpenWallet,
    Operation,
    PlaceHold,
    ReleaseHold,
    Reverse,
    SchedulePackage,
    StartPackage,
    Tidy,
    Use,
)
from server.ledger.posting import Applied, HoldChange
from server.ledger.refusals import hold_ended, payment_already_used, reused, usage_key_reused
from server.ledger.riders import Rider, RowKey

Result = TypeVar("Result")


class Job(ABC, Generic[Result]):
    """Work for the committer. `size` counts entries; a job is never divided."""

    size: int

    def __init__(self) -> None:
        self.future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._outcome: Result | DomainError | None = None

    @property
    @abstractmethod
    def user_ids(self) -> Iterable[str]:
        """Whose wallets it needs."""

    @property
    def request_keys(self) -> Iterable[str]:
        """Keys of `requests` that it may insert."""
        return ()

    @property
    def entry_ids(self) -> Iterable[ObjectId]:
        """Ids of entries that are derived from a key, so that another may have inserted them."""
        return ()

    @property
    def hold_ids(self) -> Iterable[tuple[str, ObjectId]]:
        """Holds that may have ended, each with its user."""
        return ()

    @property
    def row_keys(self) -> Iterable[RowKey]:
        """Rows of other domains that it may change."""
        return ()

    @property
    def writer_key(self) -> str | None:
        """The stream writer that it moves."""
        return None

    def apply(self, draft: Draft) -> Iterator[None]:
        """Puts its effect into the draft and remembers what to answer, in steps.

        Between two steps other work may run, as long as it leaves the draft alone.
        """
        try:
            self._outcome = yield from self._apply(draft)
        except DomainError as refusal:
            self._outcome = refusal

    @abstractmethod
    def _apply(self, draft: Draft) -> Generator[None, None, Result]: ...

    def answer(self) -> None:
        """Tells the caller what `apply` came to: only once that is durable."""
        if isinstance(self._outcome, DomainError):
            self.fail(self._outcome)
        elif not self.future.done() and self._outcome is not None:
            self.future.set_result(self._outcome)

    def fail(self, error: DomainError) -> None:
        """Tells the caller that nothing took effect, as far as is known."""
        if not self.future.done():
            self.future.set_exception(error)


class Posted(NamedTuple):
    """What an operation came to: its entry, if it makes one, and the wallet after it.

    `hold` is the one that it placed, extended or ended.
    """

    entry: Entry | None
    wallet: Wallet
    hold: HoldChange | None = None


class Request(NamedTuple):
    """A client's request_id with what it stands for; the key is unique per client."""

    key: str
    fingerprint: bytes

    @staticmethod
    def of(client_id: str, request_id: str, payload: Sequence[object]) -> "Request":
        """The request; `payload` is all that the caller asked for, as plain JSON values."""
        fingerprint = blake2b(
            orjson.dumps(payload, option=orjson.OPT_SORT_KEYS), digest_size=16
        ).digest()
        # A client_id has no zero byte, so two clients' keys never meet.
        return Request(f"{client_id}\0{request_id}", fingerprint)


def replayed(earlier: RequestRow, request: Request) -> Posted:
    """The first result. REQUEST_ID_REUSED where it was of something else."""
    if earlier.fingerprint != request.fingerprint:
        raise reused(request.key)
    assert earlier.wallet is not None
    return Posted(earlier.entry, earlier.wallet, earlier.hold)


class OperationJob(Job[Posted]):
    """One operation on one wallet, under the caller's request_id if it has one, and its rider."""

    size = 1

    def __init__(
        self, operation: Operation, request: Request | None, rider: Rider | None = None
    ) -> None:
        super().__init__()
        self._operation = operation
        self._request = request
        self._rider = rider

    @property
    def user_ids(self) -> Iterable[str]:
        return (self._operation.user_id,)

    @property
    def request_keys(self) -> Iterable[str]:
        return () if self._request is None else (self._request.key,)

    @property
    def entry_ids(self) -> Iterable[ObjectId]:
        return (self._operation.id,) if isinstance(self._operation, _KEYED) else ()

    @property
    def row_keys(self) -> Iterable[RowKey]:
        return () if self._rider is None else self._rider.keys

    def _apply(self, draft: Draft) -> Generator[None, None, Posted]:
        yield from ()
        request = self._request
        if request is not None and (earlier := draft.find_request(request.key)):
            return replayed(earlier, request)
        try:
            rows = draft.ridden(self._rider) if self._rider is not None else {}
            posted = _perform(draft, self._operation)
        except DomainError:
            keys, ids = tuple(self.request_keys), tuple(self.entry_ids)
            draft.doubts.append(Doubt(self._operation.user_id, keys, ids))
            raise
        draft.rows.update(rows)
        if request is not None:
            draft.requests[request.key] = RequestRow(
                *request, posted.entry, posted.wallet, posted.hold
            )
        return posted


def _perform(draft: Draft, operation: Operation) -> Posted:
    if isinstance(operation, OpenWallet):
        return _open(draft, operation)
    if isinstance(operation, _KEYED) and (earlier := draft.find_entry(operation.id)):
        raise _taken(operation, earlier)
    wallet = draft.wallet(operation.user_id)
    applied = _RULES[type(operation)](wallet, operation, draft.time_of(wallet))
    if isinstance(operation, Tidy) and not applied.entries:
        return Posted(None, applied.wallet)
    if isinstance(operation, _KEYED) and applied.entry is not None:
        draft.record_keyed(operation.user_id, applied)
    else:
        draft.record(operation.user_id, applied)
    if isinstance(operation, SchedulePackage | EndPackage) and applied.entry is None:
        draft.package_notes.append(packages.note(operation, applied.wallet))
    hold = None
    if applied.entry is not None and applied.entry.hold_id is not None:
        hold = applied.holds[-1]
    return Posted(applied.entry, applied.wallet, hold)


def _taken(operation: Operation, earlier: Entry) -> DomainError:
    """Why an operation cannot be: an entry has the id that its own would have."""
    if isinstance(operation, CaptureHold | ReleaseHold) and earlier.hold_id == operation.hold_id:
        return hold_ended(operation.hold_id)
    if isinstance(operation, CaptureHold):
        return usage_key_reused(operation.usage_key)
    if isinstance(operation, StartPackage):
        return payment_already_used(earlier)
    return DomainError(
        Reason.ALREADY_REVERSED,
        "the transaction was reversed before",
        {"reversal_id": earlier.id},
    )


_KEYED = (Reverse, CaptureHold, ReleaseHold, StartPackage)
"""Operations whose entry's id may be derived, so that it can be there only once."""

_RULES: dict[type[Operation], Callable[[Wallet, Operation, int], Applied]] = {
    AddGrant: apply.add_grant,  # type: ignore[dict-item]
    Consume: apply.consume,  # type: ignore[dict-item]
    Use: apply.use,  # type: ignore[dict-item]
    Reverse: apply.reverse,  # type: ignore[dict-item]
    ChangeSettings: apply.change_settings,  # type: ignore[dict-item]
    Tidy: apply.tidy,  # type: ignore[dict-item]
    PlaceHold: holds.place_hold,  # type: ignore[dict-item]
    ExtendHold: holds.extend_hold,  # type: ignore[dict-item]
    CaptureHold: holds.capture_hold,  # type: ignore[dict-item]
    ReleaseHold: holds.release_hold,  # type: ignore[dict-item]
    StartPackage: packages.start_package,  # type: ignore[dict-item]
    SchedulePackage: packages.schedule_package,  # type: ignore[dict-item]
    EndPackage: packages.end_package,  # type: ignore[dict-item]
}


def _open(draft: Draft, operation: OpenWallet) -> Posted:
    wallet = draft.find_wallet(operation.user_id)
    if wallet is None:
        user_id = ObjectId(operation.user_id)
        profile = Profile(ObjectId(), user_id, operation.email, draft.now_ms)
        wallet = draft.after[operation.user_id] = new_wallet(profile)
        return Posted(None, wallet)
    tidied = expire(wallet, draft.time_of(wallet))
    if tidied.entries:
        draft.record(operation.user_id, tidied)
    return Posted(None, tidied.wallet)
