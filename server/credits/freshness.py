"""Books in memory, renewed before a refusal that rests on them is told.

What another process has changed and answered must not be refused here for want of
having looked. What is allowed, or priced, goes by the book as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from server.kernel.errors import DomainError, Reason

OF_BOOKS: Final = frozenset({Reason.PRICE_NOT_FOUND, Reason.FEATURE_ENDPOINT_NOT_FOUND})
"""Refusals that rest on books alone."""


class Freshness:
    """`renewals` read each book again if it has changed; they raise nothing."""

    def __init__(self, *renewals: Callable[[], Awaitable[None]]) -> None:
        self._renewals = renewals
        self._turn = asyncio.Lock()
        self._begun = 0

    async def renew(self) -> None:
        """Returns once the books have been looked at again.

        One look serves all who asked before it began: refusals must not cost a read each.
        """
        wanted = self._begun + 1
        async with self._turn:
            if self._begun < wanted:
                self._begun = wanted
                await asyncio.gather(*(renewal() for renewal in self._renewals))


def rests_on_books(error: DomainError | None) -> bool:
    """Whether a newer book might not refuse."""
    return error is not None and error.reason in OF_BOOKS
