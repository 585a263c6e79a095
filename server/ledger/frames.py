"""Usage frames: events that are settled together, each exactly once."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple

from bson import ObjectId

from server.kernel.errors import DomainError, Reason
from server.ledger import apply
from server.ledger.draft import Doubt, Draft, RejectedUsage, RequestRow
from server.ledger.jobs import Job, Request
from server.ledger.model import Entry, HoldState, Wallet, Writer
from server.ledger.operations import Use
from server.ledger.refusals import fenced, hold_ended, hold_not_found, reused, usage_key_reused

SLICE_EVENTS = 100
"""Events that are settled in one step, which is about a millisecond."""


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
    """What a frame came to: an outcome for each item after the `skipped` events settled before."""

    skipped: int
    outcomes: tuple[Settled | Refused, ...]


class FramePosition(NamedTuple):
    """Where in which writer's sequence a frame stands, and the epoch of its stream."""

    writer_key: str
    epoch: int
    offset: int


class FrameJob(Job[FrameResult]):
    """Usage events that are settled together. One that is refused does not touch the rest.

    Behind them stand `unbilled` others, which the writer passes and nothing else comes of.
    """

    def __init__(
        self,
        items: Sequence[UsageItem],
        position: FramePosition | None,
        request: Request | None = None,
        unbilled: int = 0,
    ) -> None:
        super().__init__()
        self._items = items
        self._position = position
        self._request = request
        self.size = len(items) + unbilled

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
    def hold_ids(self) -> Iterable[tuple[str, ObjectId]]:
        for item in self._items:
            use = item.use
            if use is not None and use.hold_id is not None:
                yield use.user_id, use.hold_id

    @property
    def writer_key(self) -> str | None:
        return None if self._position is None else self._position.writer_key

    def _apply(self, draft: Draft) -> Generator[None, None, FrameResult]:
        self._check_request(draft)
        skipped = self._advance(draft)
        outcomes: list[Settled | Refused] = []
        for start in range(skipped, len(self._items), SLICE_EVENTS):
            for item in self._items[start : start + SLICE_EVENTS]:
                outcomes.append(self._settle(draft, item))
            yield
        self._record_request(draft, outcomes)
        return FrameResult(skipped, tuple(outcomes))

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


def _with_hold(draft: Draft, use: Use, wallet: Wallet, hold_id: ObjectId) -> Use:
    """The use as it is to be billed. HOLD_NOT_FOUND, HOLD_ENDED.

    A hold that ended without a bill leaves a use like any other; one that was
    billed would be billed twice.
    """
    if any(hold.id == hold_id for hold in wallet.holds):
        return use
    change = draft.ended_hold(use.user_id, hold_id)
    if change is None:
        raise hold_not_found(hold_id)
    if change.is_billed:
        raise hold_ended(hold_id, HoldState(change.state).name.lower())
    return use._replace(hold_id=None)


def _bill(draft: Draft, use: Use) -> Settled:
    earlier = draft.find_entry(use.id)
    if earlier is None:
        wallet = draft.wallet(use.user_id)
        try:
            if use.hold_id is not None:
                use = _with_hold(draft, use, wallet, use.hold_id)
            applied = apply.use(wallet, use, draft.time_of(wallet))
        except DomainError:
            draft.doubts.append(Doubt(use.user_id, (), (use.id,)))
            raise
        return Settled(draft.record_keyed(use.user_id, applied), False)
    if earlier.usage != use.usage:
        raise usage_key_reused(use.usage.usage_key)
    return Settled(earlier, True)
