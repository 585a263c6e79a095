"""Sides and contestants that do nothing, and say what they were asked."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

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
    """A contestant whose runs come to as many debits as the script has, in turn."""

    pids: Mapping[str, int] = {}

    def __init__(self, name: str, script: Iterable[int], order: list[str] | None = None) -> None:
        self.name = name
        self._script = iter(script)
        self._order = [] if order is None else order
        self._funded: dict[str, int] = {}
        self._debits: Counter[str] = Counter()
        self.lost_micros = 0
        """What the books of every first wallet are short of."""
        self.stray_debits = 0
        """Debits that are stored beside those that were answered; below 0: that are not."""

    async def fund(self, count: int, micros: int) -> list[str]:
        users = [f"{self.name}-{len(self._funded) + number}" for number in range(count)]
        self._funded |= dict.fromkeys(users, micros)
        return users

    async def debit(self, load: Load) -> Outcome:
        done = next(self._script)
        self._order.append(self.name)
        self._debits[load.users[0]] += done
        return Outcome(seconds=load.seconds, latencies=[0.001] * done)

    async def books(self, users: Sequence[str]) -> Books:
        debits = self._debits[users[0]] + self.stray_debits
        balances = [self._funded[user_id] for user_id in users]
        balances[0] -= debits * CONSUMED_MICROS + self.lost_micros
        return Books(balances, debits)
