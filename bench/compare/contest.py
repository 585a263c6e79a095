"""The server beside what a user would pick instead: debits of 1,000 wallets and of one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from bench.compare.contestants import Books, Contestant, Load, Ours, Outcome, naive
from bench.compare.medici import LeftOutError, medici
from bench.consume import CONSUMED_MICROS, SPREAD_WALLETS
from bench.machine import IDLE, OTHERS, Meter
from bench.pairs import milliseconds, spread_of
from bench.setting import Bench, Size, tell
from bench.wallets import FUNDS_MICROS

RUN_SECONDS = Size(2, 5)
LEAST_SECONDS = 0.2
NO_END = 10**9
TIGHT_DEBITS = 200
"""What the wallet that is overspent, if it can be, has credits for: half of what is asked of it."""
TIGHT_SECONDS = 60.0


@dataclass(slots=True)
class Series:
    """The runs of one contestant on its wallets, and what they cost its processes."""

    contestant: Contestant
    users: Sequence[str]
    runs: list[Outcome] = field(default_factory=list)
    cpu: list[Mapping[str, float]] = field(default_factory=list)
    peaks: Mapping[str, float] = field(default_factory=dict)
    overspent: int = 0
    books: str = "right"
    sure: int = 0
    unsure: int = 0

    async def run(self, seconds: float) -> Outcome:
        """One run; and whether the books are right after it."""
        meter = Meter(self.contestant.pids)
        outcome = await self.contestant.debit(Load(self.users, seconds, NO_END))
        costs = meter.read()
        self.runs.append(outcome)
        self.cpu.append(costs["cpu_seconds"])
        self.peaks = costs["peak_rss_mib"]
        self.sure += outcome.done
        self.unsure += outcome.errors.total()
        await self._audit()
        return outcome

    def forget(self) -> None:
        """What there was warmed up only. The books go on."""
        self.runs.clear()
        self.cpu.clear()

    async def _audit(self) -> None:
        books = await self.contestant.books(self.users)
        self.overspent += sum(balance < 0 for balance in books.balances)
        wrong = _wrong(books, len(self.users) * FUNDS_MICROS, self.sure, self.unsure)
        if wrong:
            self.books = wrong
            tell(f"compare: {self.contestant.name}: {wrong}")

    def row(self, granted: int) -> dict[str, Any]:
        """What is told of it: of the run whose rate is the median."""
        ranked = sorted(range(len(self.runs)), key=lambda place: _rate(self.runs[place]))
        middle = ranked[(len(ranked) - 1) // 2]
        run, latencies = self.runs[middle], sorted(self.runs[middle].latencies)
        rates = [round(_rate(self.runs[place])) for place in (ranked[0], ranked[-1])]
        done = max(1, run.done)
        return {
            "service": self.contestant.name,
            "wallets": len(self.users),
            "debits/s": round(_rate(run), 1),
            "lowest to highest": f"{rates[0]:,} to {rates[1]:,}",
            "p50 ms": milliseconds(latencies, 50) if latencies else 0.0,
            "p99 ms": milliseconds(latencies, 99) if latencies else 0.0,
            "retries a debit": round(sum(each.retries for each in self.runs) / self._done(), 2),
            "errors": _errors(self.runs),
            "books": self.books,
            "overspent": self.overspent + max(0, granted - TIGHT_DEBITS),
            "CPU µs a debit": {
                role: round(seconds * 1e6 / done)
                for role, seconds in self.cpu[middle].items()
                if role not in {IDLE, OTHERS}
            },
            "peak MiB": {role: round(peak) for role, peak in self.peaks.items()},
        }

    def _done(self) -> int:
        return max(1, sum(run.done for run in self.runs))


async def compare(bench: Bench) -> dict[str, Any]:
    """All contestants in turns, on many wallets and on one; each run's books are looked at."""
    seconds = max(LEAST_SECONDS, bench.plan.size(RUN_SECONDS) * min(1.0, bench.plan.scale))
    async with AsyncExitStack() as stack:
        contestants: list[Contestant] = [Ours(bench), await stack.enter_async_context(naive(bench))]
        left_out: dict[str, str] = {}
        try:
            contestants.append(await stack.enter_async_context(medici(bench)))
        except LeftOutError as why:
            left_out["medici"] = str(why)
            tell(f"compare: medici is left out: {why}")
        meter = Meter({role: pid for each in contestants for role, pid in each.pids.items()})
        series = [
            Series(each, await each.fund(wallets, FUNDS_MICROS))
            for wallets in (SPREAD_WALLETS, 1)
            for each in contestants
        ]
        await take_rounds(series, bench.plan.pairs, seconds)
        granted = {each.name: await _granted(each) for each in contestants}
        rows = [each.row(granted[each.contestant.name]) for each in series]
        said = {"left_out": left_out} if left_out else {}
        told = {**summarize(series), **said, "tight_wallet_granted": granted, "rows": rows}
        return {**told, **meter.read()}


async def take_rounds(series: Sequence[Series], rounds: int, seconds: float) -> None:
    """A run of each in so many rounds, after one that only warms up.

    Odd ones go the other way round, so that drift favours nobody.
    """
    for number in range(rounds + 1):
        for each in reversed(series) if number % 2 else series:
            outcome = await each.run(seconds)
            _tell(number, each, outcome)
            if not number:
                each.forget()


async def _granted(contestant: Contestant) -> int:
    """How many debits a wallet granted that had credits for TIGHT_DEBITS, of twice as many."""
    users = await contestant.fund(1, TIGHT_DEBITS * CONSUMED_MICROS)
    outcome = await contestant.debit(Load(users, TIGHT_SECONDS, 2 * TIGHT_DEBITS))
    (balance,) = (await contestant.books(users)).balances
    return max(outcome.done, TIGHT_DEBITS - balance // CONSUMED_MICROS)


def _wrong(books: Books, funded: int, sure: int, unsure: int) -> str:
    """What is wrong with the books, or nothing. An error leaves open whether it was a debit."""
    off = sum(books.balances) - (funded - books.debits * CONSUMED_MICROS)
    if off:
        return f"balances are off by {off} micro-credits"
    if not sure <= books.debits <= sure + unsure:
        return f"{books.debits} debits are stored of {sure} that were answered"
    return ""


def summarize(series: Sequence[Series]) -> dict[str, Any]:
    """What ours has over each other, round by round: the ratio first told is the line's own."""
    ratios = []
    for wallets in dict.fromkeys(len(each.users) for each in series):
        ours, *others = (each for each in series if len(each.users) == wallets)
        for other in others:
            name = f"{other.contestant.name.split(',')[0]}, {_wallets(wallets)}"
            rounds = zip(ours.runs, other.runs, strict=True)
            ratios.append({"over": name, **spread_of([_ratio(*round_) for round_ in rounds])})
    first = {name: value for name, value in ratios[0].items() if name != "over"}
    unit = f"times the debits, over {ratios[0]['over']}"
    return {"value": first["ratio"], "unit": unit, **first, "ratios": ratios}


def _ratio(ours: Outcome, other: Outcome) -> float:
    """Of rates; one who got nothing done is taken to have done one debit."""
    return _rate(ours) / (max(1, other.done) / other.seconds)


def _rate(outcome: Outcome) -> float:
    return outcome.done / outcome.seconds


def _errors(runs: Sequence[Outcome]) -> str:
    errors: Counter[str] = sum((run.errors for run in runs), Counter())
    refused = sum(run.refused for run in runs)
    if refused:
        errors["refused"] = refused
    return ", ".join(f"{count} {name}" for name, count in errors.items()) or "none"


def _tell(number: int, series: Series, outcome: Outcome) -> None:
    which = f"run {number}" if number else "warm-up"
    tell(
        f"{which}: {series.contestant.name}, {_wallets(len(series.users))}: {_rate(outcome):,.0f}/s"
    )


def _wallets(count: int) -> str:
    return "one wallet" if count == 1 else f"{count:,} wallets"
