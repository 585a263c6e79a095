"""Sides and contestants that do nothing, and say what they were asked."""

from collections.abc import Mapping, Sequence

from bench.compare.contestants import Books, Load, Outcome
from bench.consume import CONSUMED_MICROS
from bench.pairs import Pair, Run, Sample


class Asked:
    """A side that notes its runs."""

    def __init__(self, name: str, order: list[str]) -> None:
        self._name = name
        self._order = order

    async def prepare(self, operations: int) -> Run:
        async def run() -> list[float]:
            self._order.append(self._name)
            return [0.001] * operations

        return run


def a_sample(per_second: float, operations: int = 1_000) -> Sample:
    return Sample(operations, operations / per_second, [0.001] * operations, {"server": 1.0})


def a_pair(ours: float, baseline: float) -> Pair:
    return Pair(a_sample(ours), a_sample(baseline))


class Scripted:
    """A contestant whose runs of a second come to as many debits as the script has, in turn."""

    pids: Mapping[str, int] = {}

    def __init__(self, name: str, script: Sequence[int], order: list[str] | None = None) -> None:
        self.name = name
        self._script = iter(script)
        self._order = [] if order is None else order
        self._funded: dict[str, int] = {}
        self.debits = 0
        self.lost_micros = 0
        """What its books are short of."""

    async def fund(self, count: int, micros: int) -> list[str]:
        self._funded = {f"{self.name}-{number}": micros for number in range(count)}
        return list(self._funded)

    async def debit(self, load: Load) -> Outcome:
        done = next(self._script)
        self._order.append(self.name)
        self.debits += done
        return Outcome(seconds=load.seconds, latencies=[0.001] * done)

    async def books(self, users: Sequence[str]) -> Books:
        balances = [self._funded[user_id] for user_id in users]
        balances[0] -= self.debits * CONSUMED_MICROS + self.lost_micros
        return Books(balances, self.debits)
