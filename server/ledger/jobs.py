"""What waits in the committer's queue: single operations and usage frames.

A job is applied to a draft, perhaps several times (a lost transaction is
applied again to a fresh one), and answered once, after the commit.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

import orjson
from bson import ObjectId

from server.kernel.errors import DomainError, Reason
from server.ledger import apply
from server.ledger.apply import Applied
from server.ledger.draft import Doubt, Draft, RejectedUsage, RequestRow
from server.ledger.model import Entry, Profile, Wallet, Writer, new_wallet
from server.ledger.operations import (
    AddGrant,
    ChangeSettings,
    Consume,
    OpenWallet,
    Operation,
    Reverse,
    Use,
)

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
    def writer_key(self) -> str | None:
        """The stream writer that it moves."""
        return None

    def apply(self, draft: Draft) -> None:
        """Puts its effect into the draft and remembers what to answer."""
        try:
            self._outcome = self._apply(draft)
        except DomainError as refusal:
            self._outcome = refusal

    @abstractmethod
    def _apply(self, draft: Draft) -> Result: ...

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
    """What an operation came to: its entry, if it makes one, and the wallet after it."""

    entry: Entry | None
    wallet: Wallet


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


def reused(request_key: str) -> DomainError:
    """REQUEST_ID_REUSED."""
    request_id = request_key.partition("\0")[2]
    return DomainError(
        Reason.REQUEST_ID_REUSED,
        "this request_id was used before with another payload",
        {"request_id": request_id},
    )


class OperationJob(Job[Posted]):
    """One operation on one wallet, under the caller's request_id if it has one."""

    size = 1

    def __init__(self, operation: Operation, request: Request | None) -> None:
        super().__init__()
        self._operation = operation
        self._request = request

    @property
    def user_ids(self) -> Iterable[str]:
        return (self._operation.user_id,)

    @property
    def request_keys(self) -> Iterable[str]:
        return () if self._request is None else (self._request.key,)

    @property
    def entry_ids(self) -> Iterable[ObjectId]:
        return (self._operation.id,) if isinstance(self._operation, Reverse) else ()

    def _apply(self, draft: Draft) -> Posted:
        request = self._request
        if request is not None and (earlier := draft.find_request(request.key)):
            if earlier.fingerprint != request.fingerprint:
                raise reused(request.key)
            assert earlier.wallet is not None
            return Posted(earlier.entry, earlier.wallet)
        try:
            posted = _perform(draft, self._operation)
        except DomainError:
            keys, ids = tuple(self.request_keys), tuple(self.entry_ids)
            draft.doubts.append(Doubt(self._operation.user_id, keys, ids))
            raise
        if request is not None:
            draft.requests[request.key] = RequestRow(*request, *posted)
        return posted


def _perform(draft: Draft, operation: Operation) -> Posted:
    if isinstance(operation, OpenWallet):
        return _open(draft, operation)
    if isinstance(operation, Reverse) and (earlier := draft.find_entry(operation.id)):
        raise DomainError(
            Reason.ALREADY_REVERSED,
            "the transaction was reversed before",
            {"reversal_id": earlier.id},
        )
    applied = _RULES[type(operation)](draft.wallet(operation.user_id), operation, draft.now_ms)
    if isinstance(operation, ChangeSettings):
        draft.record_tidying(operation.user_id, applied)
        return Posted(None, applied.wallet)
    record = draft.record_keyed if isinstance(operation, Reverse) else draft.record
    return Posted(record(operation.user_id, applied), applied.wallet)


_RULES: dict[type[Operation], Callable[[Wallet, Operation, int], Applied]] = {
    AddGrant: apply.add_grant,  # type: ignore[dict-item]
    Consume: apply.consume,  # type: ignore[dict-item]
    Use: apply.use,  # type: ignore[dict-item]
    Reverse: apply.reverse,  # type: ignore[dict-item]
    ChangeSettings: apply.change_settings,  # type: ignore[dict-item]
}


def _open(draft: Draft, operation: OpenWallet) -> Posted:
    wallet = draft.find_wallet(operation.user_id)
    if wallet is None:
        user_id = ObjectId(operation.user_id)
        profile = Profile(ObjectId(), user_id, operation.email, draft.now_ms)
        wallet = draft.after[operation.user_id] = new_wallet(profile)
        return Posted(None, wallet)
    tidied = apply.expire(wallet, draft.now_ms)
    if tidied.entries:
        draft.record_tidying(operation.user_id, tidied)
    return Posted(None, tidied.wallet)


class Refused(NamedTuple):
    """An event that was not billed, and whether ListRejectedUsage has it."""

    error: DomainError
    kept: bool


class Settled(NamedTuple):
    """An event that was billed, now or (`duplicate`) before."""

    entry: Entry
    duplicate: bool


class UsageItem(NamedTuple):
    """One event of a frame: what to bill, or why not.

    `keep` makes the row that keeps it should it be refused (None: it is not
    kept); `settles` is the kept row that goes once it is billed.
    """

    use: Use | None
    refusal: DomainError | None
    keep: Callable[[DomainError], RejectedUsage] | None
    settles: ObjectId | None = None


class FrameResult(NamedTuple):
    """What a frame came to: an outcome for each event after the `skipped` ones settled before."""

    skipped: int
    outcomes: tuple[Settled | Refused, ...]


class FramePosition(NamedTuple):
    """Where in which writer's sequence a frame stands, and the epoch of its stream."""

    writer_key: str
    epoch: int
    offset: int


class FrameJob(Job[FrameResult]):
    """Usage events that are settled together. One that is refused does not touch the rest."""

    def __init__(
        self,
        items: Sequence[UsageItem],
        position: FramePosition | None,
        request: Request | None = None,
    ) -> None:
        super().__init__()
        self._items = items
        self._position = position
        self._request = request
        self.size = len(items)

    @property
    def user_ids(self) -> Iterable[str]:
        return (item.use.user_id for item in self._items if item.use is not None)

    @property
    def request_keys(self) -> Iterable[str]:
        return () if self._request is None else (self._request.key,)

    @property
    def entry_ids(self) -> Iterable[ObjectId]:
        return (item.use.id for item in self._items if item.use is not None)

    @property
    def writer_key(self) -> str | None:
        return None if self._position is None else self._position.writer_key

    def _apply(self, draft: Draft) -> FrameResult:
        self._check_request(draft)
        skipped = self._advance(draft)
        outcomes = tuple(self._settle(draft, item) for item in self._items[skipped:])
        self._record_request(draft, outcomes)
        return FrameResult(skipped, outcomes)

    def _check_request(self, draft: Draft) -> None:
        """The events' own keys make a replay safe; the row only catches another payload."""
        if self._request is None:
            return
        earlier = draft.find_request(self._request.key)
        if earlier is not None and earlier.fingerprint != self._request.fingerprint:
            raise reused(self._request.key)

    def _record_request(self, draft: Draft, outcomes: Sequence[Settled | Refused]) -> None:
        request = self._request
        if request is None or draft.find_request(request.key):
            return
        if any(isinstance(outcome, Settled) for outcome in outcomes):
            draft.requests[request.key] = RequestRow(*request, None, None)

    def _advance(self, draft: Draft) -> int:
        """Moves the writer past this frame. Returns how many of its events it had settled."""
        if self._position is None:
            return 0
        writer_key, epoch, offset = self._position
        writer = draft.writer(writer_key)
        if writer.epoch != epoch:
            raise fenced(writer_key)
        if offset > writer.next_offset:
            raise DomainError(
                Reason.OFFSET_OUT_OF_RANGE,
                f"the writer's next offset is {writer.next_offset}, the frame's {offset}",
                {"next_offset": writer.next_offset, "offset": offset},
            )
        skipped = min(writer.next_offset - offset, self.size)
        if skipped < self.size:
            draft.writers[writer_key] = Writer(writer_key, epoch, offset + self.size)
        return skipped

    def _settle(self, draft: Draft, item: UsageItem) -> Settled | Refused:
        use, error = item.use, item.refusal
        if use is not None:
            try:
                settled = _bill(draft, use)
            except DomainError as refusal:
                error = refusal
            else:
                if item.settles is not None:
                    draft.settled_rejections.append(item.settles)
                return settled
        assert error is not None
        if item.keep is not None:
            row = item.keep(error)
            draft.rejected[row.id] = row
        return Refused(error, item.keep is not None)


def _bill(draft: Draft, use: Use) -> Settled:
    earlier = draft.find_entry(use.id)
    if earlier is None:
        wallet = draft.wallet(use.user_id)
        try:
            applied = apply.use(wallet, use, draft.now_ms)
        except DomainError:
            draft.doubts.append(Doubt(use.user_id, (), (use.id,)))
            raise
        return Settled(draft.record_keyed(use.user_id, applied), False)
    if earlier.usage != use.usage:
        raise DomainError(
            Reason.USAGE_KEY_REUSED,
            "this usage_key was used before with another payload",
            {"usage_key": use.usage.usage_key},
        )
    return Settled(earlier, True)


def fenced(writer_key: str) -> DomainError:
    """WRITER_FENCED."""
    writer_id = writer_key.partition("\0")[2]
    return DomainError(
        Reason.WRITER_FENCED,
        "another stream has opened this writer_id since",
        {"writer_id": writer_id},
    )
