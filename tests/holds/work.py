"""Work under holds by many callers at once, and what their answers say must have come of it."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.credits.v1 import usage_service_pb2
from zaaz.ledger.v1 import hold_pb2

from server.kernel.clock import Clock, system_clock
from tests.holds.conftest import CAPTURE_ALL, CAPTURE_REPORTED, HELD_MICROS, RELEASE, Holder, used
from tests.races.callers import event_outcomes, persist
from tests.serving import Served, new_key, usage_event

POLICIES = (RELEASE, CAPTURE_REPORTED, CAPTURE_ALL)
ACTIVE, CAPTURED, RELEASED, EXPIRED = 1, 2, 3, 4


class Work:
    """Callers that place a hold and end it; each call goes to any of the servers.

    A call that is told CONTENTION is made again, at any server, under the same request_id.
    """

    def __init__(
        self,
        servers: Iterable[Served],
        rng: random.Random,
        clock: Clock = system_clock,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """`meanwhile` happens between the beginning of each hold and its end."""
        self._holders = [Holder(served) for served in servers]
        self._rng = rng
        self._clock = clock
        self._meanwhile = meanwhile
        self.spent: Counter[str] = Counter()
        self.ends: dict[str, int] = {}
        """What the end of each hold billed by its answer; -1: it had ended before."""
        self.denied = 0
        self.told: Counter[str] = Counter()

    async def once(self, user_id: str, ttl_seconds: int = 3_600) -> None:
        """A hold, from its beginning to its end."""
        policy = self._rng.choice(POLICIES)
        call = self._call("authorize", user_id, ttl_seconds=ttl_seconds, disconnect_policy=policy)
        answer = await persist(call)
        assert not isinstance(answer, str), answer
        if not answer.allowed:
            self.denied += 1
            return
        self._meanwhile()
        # What was answered stays so, wherever it is asked again.
        assert (await persist(call)).hold == answer.hold
        hold_id = answer.hold.id
        if self._rng.random() < 0.3:
            extended = await persist(self._call("extend", hold_id, reported=used(100, 50)))
            assert extended == "HOLD_ENDED" or extended.hold.reported_micros == HELD_MICROS // 10
        ends = (self._released, self._captured, self._captured, self._used)
        await self._rng.choice(ends)(user_id, hold_id)

    async def _released(self, user_id: str, hold_id: str) -> None:
        answer = await persist(self._call("release", hold_id))
        self._ended(hold_id, answer, 0)

    async def _captured(self, user_id: str, hold_id: str) -> None:
        tokens = self._rng.choice([None, (500, 250), (1_000, 500), (1_500, 750)])
        answer = await persist(self._call("capture", hold_id, tokens))
        if not isinstance(answer, str):
            self.spent[user_id] += answer.transaction.credits_micros
            short = answer.transaction.shortfall_micros
            assert answer.hold.captured_micros == answer.transaction.credits_micros + short
            self._ended(hold_id, answer, answer.hold.captured_micros)
        else:
            self._ended(hold_id, answer, 0)

    async def _used(self, user_id: str, hold_id: str) -> None:
        event = usage_event(
            user_id, hold_id=hold_id, input_tokens=500, output_tokens=250, occurred_ms=self._clock()
        )
        request_id = new_key()
        place = self._rng.randrange(len(self._holders))

        def call() -> Any:
            return self._holders[place].served.usage.RecordUsage(usage_request(request_id, event))

        answer = await persist(call)
        (reason,) = event_outcomes(answer)
        if reason:
            self._ended(hold_id, reason, 0)
            return
        receipt = answer.results[0].receipt
        self.spent[user_id] += receipt.credits_micros
        self.told["used"] += 1
        self.ends[hold_id] = receipt.credits_micros + receipt.shortfall_micros

    def _ended(self, hold_id: str, answer: Any, billed_micros: int) -> None:
        if isinstance(answer, str):
            assert answer == "HOLD_ENDED"
            self.told["ended"] += 1
            self.ends[hold_id] = -1
            return
        self.told[hold_pb2.HoldState.Name(answer.hold.state)] += 1
        self.ends[hold_id] = billed_micros

    def _call(self, name: str, *arguments: Any, **fields: Any) -> Callable[[], Any]:
        request_id = new_key()

        def call() -> Any:
            holder = self._rng.choice(self._holders)
            return getattr(holder, name)(*arguments, request_id=request_id, **fields)

        return call


def usage_request(request_id: str, event: Any) -> Any:
    """One event."""
    return usage_service_pb2.RecordUsageRequest(request_id=request_id, events=[event])


async def holds_of(served: Served, user_id: str) -> list[hold_pb2.Hold]:
    """All of a user's holds."""
    found: list[hold_pb2.Hold] = []
    token = ""
    while True:
        page = await served.process.ListHolds(
            pb.ListHoldsRequest(user_id=user_id, page_size=100, page_token=token)
        )
        found += page.holds
        token = page.next_page_token
        if not token:
            return found


async def assert_ended_once(served: Served, user_id: str) -> int:
    """Every hold has a beginning and one end among the transactions. What the ends took."""
    holds = await holds_of(served, user_id)
    entries = await served.transactions(user_id)
    wallet = await served.wallet(user_id)
    assert (wallet.held_micros, list(wallet.holds)) == (0, [])
    ends: dict[str, list[Any]] = {hold.id: [] for hold in holds}
    began: Counter[str] = Counter()
    for entry in entries:
        if entry.id in ends:
            began[entry.id] += 1
        elif entry.held_change_micros < 0:
            ends[entry.hold_id].append(entry)
    taken = 0
    for hold in holds:
        assert hold.state in (CAPTURED, RELEASED, EXPIRED)
        (end,) = ends[hold.id]
        assert began[hold.id] == 1
        assert (end.id, end.held_change_micros) == (hold.ended_by_id, -hold.held_micros)
        assert end.credits_micros + end.shortfall_micros == hold.captured_micros
        taken += end.credits_micros
    assert sum(entry.held_change_micros for entry in entries) == 0
    await served.assert_sound(user_id)
    return taken


async def assert_as_told(served: Served, work: Work, funds: dict[str, int]) -> None:
    """Where nothing ran out of time, the books are what the answers said, and no more."""
    for user_id, granted in funds.items():
        holds = await holds_of(served, user_id)
        assert await assert_ended_once(served, user_id) == work.spent[user_id]
        for hold in holds:
            assert hold.captured_micros == work.ends[hold.id]
        wallet = await served.wallet(user_id)
        assert wallet.credits_micros == granted - work.spent[user_id]
        assert wallet.available_micros == wallet.credits_micros
