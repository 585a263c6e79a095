"""The outbox consumer `realtime`: wallet changes become messages of their users' channels."""

from collections.abc import Mapping
from typing import Any, Protocol

from server.realtime.port import Realtime

CONSUMER = "realtime"
_STATE = "wallet"


class _Carrier(Protocol):
    """A message of the outbox, as far as this consumer looks at it."""

    @property
    def payload(self) -> Mapping[str, Any]: ...


def wallet_channel(user_id: object) -> str:
    """The channel of a user's wallet; `user_id` as ObjectId or its 24 hex digits."""
    return f"wallet:{user_id}"


class WalletChanges:
    """Publishes each wallet of `{"wallets": [{"user_id", "sequence", ...}]}` to its channel.

    A wallet's message is its whole state: the newest replaces older ones, so
    that handling a row twice, or late, tells nobody anything wrong.
    """

    def __init__(self, realtime: Realtime) -> None:
        self._realtime = realtime

    async def handle(self, message: _Carrier) -> None:
        """Tell whoever watches. A KeyError for another payload makes it a dead letter."""
        for wallet in message.payload["wallets"]:
            channel = wallet_channel(wallet["user_id"])
            await self._realtime.publish(channel, {**wallet, "key": _STATE})
