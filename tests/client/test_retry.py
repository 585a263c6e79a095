"""Repeating calls: only what is safe, no sooner than the server asks, and not for ever."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from zaaz_client import (
    Contention,
    DeadlineExceeded,
    InsufficientCredits,
    InternalError,
    Unavailable,
    ZaazError,
)
from zaaz_client.errors import ErrorDetails
from zaaz_client.retry import CALL_TIMEOUT_SECONDS, retry_within


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


async def test_what_may_pass_is_repeated() -> None:
    passing = [Unavailable("a"), Contention("b"), DeadlineExceeded("c"), InternalError("d")]
    method = Method(list(passing))
    assert await retry_within(method, "request", 20) == "request"
    assert len(method.timeouts) == len(passing) + 1


async def test_what_is_refused_is_not() -> None:
    method = Method([InsufficientCredits("short")])
    with pytest.raises(InsufficientCredits):
        await retry_within(method, "request", 20)
    assert len(method.timeouts) == 1


async def test_no_sooner_than_the_server_asks() -> None:
    asked = timedelta(seconds=0.2)
    method = Method([Unavailable("draining", ErrorDetails(retry_delay=asked))])
    began = time.monotonic()
    await retry_within(method, "request", 20)
    assert time.monotonic() - began >= asked.total_seconds()


async def test_not_at_all_when_the_server_asks_for_more_than_there_is() -> None:
    asked = timedelta(seconds=60)
    method = Method([Unavailable("draining", ErrorDetails(retry_delay=asked))])
    with pytest.raises(Unavailable, match="draining"):
        await retry_within(method, "request", 20)
    assert len(method.timeouts) == 1


async def test_not_for_ever() -> None:
    method = Method(iter(lambda: Unavailable("gone"), None))
    with pytest.raises(Unavailable, match="gone"):
        await retry_within(method, "request", 0.3)


async def test_a_try_has_what_is_left_and_no_more_than_one_may() -> None:
    method = Method([Unavailable("gone")])
    await retry_within(method, "request", 1_000)
    await retry_within(method, "request", 5)
    assert method.timeouts[:2] == [CALL_TIMEOUT_SECONDS] * 2
    assert 0 < method.timeouts[2] <= 5
