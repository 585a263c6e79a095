"""Repeating a call that is safe to repeat."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from zaaz_client.backoff import Backoff
from zaaz_client.errors import ZaazError

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
