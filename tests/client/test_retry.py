"""Repeating calls: only what is safe, no sooner than the server asks, and not for ever."""

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest
import zaaz_client.retry
from zaaz_client import (
    Contention,
    DeadlineExceeded,
    InsufficientCredits,
    InternalError,
    Unavailable,
    ZaazError,
    retry_within,
)
from zaaz_client.backoff import MAX_RETRY_DELAY_SECONDS, Backoff
from zaaz_client.errors import ErrorDetails
from zaaz_client.retry import CALL_TIMEOUT_SECONDS, MIN_CALL_SECONDS

from .waits import StillClock, clocked, without_jitter


class Method:
    """Raises these errors, one a call, then answers its request."""

    def __init__(self, errors: Iterator[ZaazError] | list[ZaazError]) -> None:
        self._errors = iter(errors)
        self.timeouts: list[float] = []

    async def __call__(self, request: str, *, timeout: float) -> str:  # noqa: ASYNC109 - as stubs have it
        self.timeouts.append(timeout)
        for error in self._errors:
            raise error
        return request


def asking(seconds: float) -> Unavailable:
    return Unavailable("draining", ErrorDetails(retry_delay=timedelta(seconds=seconds)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return clocked(monkeypatch, zaaz_client.retry)


class TestBackoff:
    def test_its_bound_doubles_up_to_the_greatest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = without_jitter(monkeypatch)
        backoff = Backoff(min_seconds=0.1, max_seconds=5.0)
        delays = [backoff.next_delay() for _ in range(8)]
        assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        assert drawn == [(0, delay) for delay in delays]

    def test_it_never_grows_too_large_to_reckon_with(self) -> None:
        backoff = Backoff(tries=100_000)
        assert 0 <= backoff.next_delay() <= 5.0

    def test_it_begins_anew_after_a_success(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without_jitter(monkeypatch)
        backoff = Backoff(min_seconds=1, max_seconds=60)
        assert [backoff.next_delay() for _ in range(3)] == [1, 2, 4]
        backoff.reset()
        assert backoff.next_delay() == 1

    def test_it_is_drawn_from_all_of_its_range(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chance = random.Random(5)
        monkeypatch.setattr(random, "uniform", chance.uniform)
        delays = [Backoff(min_seconds=1).next_delay() for _ in range(1_000)]
        assert 0 <= min(delays) < 0.1
        assert 0.9 < max(delays) <= 1

    @pytest.mark.parametrize(
        ("asked", "least"), [(7.5, 7.5), (-3, 0), (100_000, MAX_RETRY_DELAY_SECONDS)]
    )
    def test_it_comes_on_top_of_what_the_server_asks(
        self, monkeypatch: pytest.MonkeyPatch, asked: float, least: float
    ) -> None:
        without_jitter(monkeypatch)
        backoff = Backoff(min_seconds=1)
        assert backoff.next_delay(timedelta(seconds=asked)) == least + 1


async def test_what_may_pass_is_repeated_after_a_wait_that_doubles(
    clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_jitter(monkeypatch)
    passing = [Unavailable("a"), Contention("b"), DeadlineExceeded("c"), InternalError("d")]
    method = Method(list(passing))
    assert await retry_within(method, "request", 20) == "request"
    assert len(method.timeouts) == len(passing) + 1
    assert clock.sleeps == [0.1, 0.2, 0.4, 0.8]


async def test_what_is_refused_is_not(clock: StillClock) -> None:
    method = Method([InsufficientCredits("short")])
    with pytest.raises(InsufficientCredits):
        await retry_within(method, "request", 20)
    assert (len(method.timeouts), clock.sleeps) == (1, [])


async def test_no_sooner_than_the_server_asks(clock: StillClock) -> None:
    await retry_within(Method([asking(7)]), "request", 20)
    (slept,) = clock.sleeps
    assert 7 <= slept <= 7.1


async def test_not_at_all_when_the_server_asks_for_more_than_there_is(clock: StillClock) -> None:
    method = Method([asking(60)])
    with pytest.raises(Unavailable, match="draining"):
        await retry_within(method, "request", 20)
    assert (len(method.timeouts), clock.sleeps) == (1, [])


async def test_not_for_ever(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    without_jitter(monkeypatch)
    method = Method(iter(lambda: Unavailable("gone"), None))
    with pytest.raises(Unavailable, match="gone"):
        await retry_within(method, "request", 20)
    # The next wait, of 5 s, would end after the limit.
    assert clock.sleeps == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert len(method.timeouts) == 9


async def test_a_try_has_what_is_left_and_no_more_than_one_may(
    clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Method([asking(0), asking(11.5), asking(0)])
    monkeypatch.setattr(random, "uniform", lambda low, _: low)
    await retry_within(method, "request", 12)
    assert method.timeouts[:2] == [CALL_TIMEOUT_SECONDS] * 2
    assert method.timeouts[2] == pytest.approx(0.5)
    spent = Method([asking(5)])
    await retry_within(spent, "request", 5)
    assert spent.timeouts == [5, MIN_CALL_SECONDS]
