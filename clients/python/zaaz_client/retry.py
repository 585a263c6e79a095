"""Repeating a call that is safe to repeat."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from zaaz_client.backoff import Backoff
from zaaz_client.errors import ZaazError

CALL_TIMEOUT_SECONDS: Final = 10.0
"""After this a call that is not answered is made anew: its answer may be what was lost."""
MIN_CALL_SECONDS: Final = 0.1
"""What the last try has at least."""

_T = TypeVar("_T")


async def retry(call: Callable[[], Awaitable[_T]], limit_seconds: float) -> _T:
    """The result of `call`, tried again while its error is retryable and time remains.

    For reads, and for mutations whose request_id stays the same. Raises the
    last error.
    """
    backoff = Backoff()
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            return await call()
        except ZaazError as error:
            delay = backoff.next_delay(error.retry_delay)
            if not error.retryable or time.monotonic() + delay > deadline:
                raise
        await asyncio.sleep(delay)


async def retry_within(
    method: Callable[..., Awaitable[_T]], request: Any, limit_seconds: float
) -> _T:
    """The answer of a stub's method, as `retry` has it, all tries within `limit_seconds`."""
    deadline = time.monotonic() + limit_seconds

    def call() -> Awaitable[_T]:
        left = deadline - time.monotonic()
        return method(request, timeout=min(CALL_TIMEOUT_SECONDS, max(MIN_CALL_SECONDS, left)))

    return await retry(call, limit_seconds)
