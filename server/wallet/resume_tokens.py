"""Resume tokens: where a watcher of a wallet stands. Signed, and of one wallet.

Any server with the same secret reads them, so that a watch goes on wherever
its client connects next.
"""

from server.kernel.clock import DAY_MS, Clock
from server.kernel.errors import DomainError, Reason
from server.kernel.paging import PageTokens

MAX_TOKEN_AGE_MS = 7 * DAY_MS
"""Who was away for longer takes a snapshot."""


class ResumeTokens:
    """Makes and reads tokens of `[sequence, time in milliseconds]`."""

    def __init__(self, signer: PageTokens, clock: Clock) -> None:
        self._signer = signer
        self._clock = clock

    def make(self, user_id: str, sequence: int) -> str:
        """Goes on after the wallet's transaction `sequence`; its age counts from now."""
        return self._signer.make(_query(user_id), [sequence, self._clock()])

    def read(self, user_id: str, token: str) -> int | None:
        """The sequence of a token; None of an empty one.

        RESYNC_REQUIRED for a token that is too old, of another wallet, or damaged.
        """
        try:
            cursor = self._signer.read(_query(user_id), token)
        except DomainError:
            raise resync_required("the resume token is of another wallet, or damaged") from None
        if cursor is None:
            return None
        sequence, made_ms = (int(part) for part in cursor)
        if self._clock() - made_ms > MAX_TOKEN_AGE_MS:
            raise resync_required("the resume token is too old")
        return sequence


def resync_required(why: str) -> DomainError:
    """RESYNC_REQUIRED."""
    return DomainError(Reason.RESYNC_REQUIRED, f"{why}: watch anew without one")


def _query(user_id: str) -> str:
    return f"WatchWallet\0{user_id}"
