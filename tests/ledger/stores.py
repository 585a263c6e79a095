"""Ledger stores on a real database, without a server around them."""

from typing import Any


class Nobody:
    """The outbox of who writes nothing."""

    def document(self, topic: str, payload: Any) -> None:
        raise AssertionError("nothing is written")

    def committed(self, rows: Any) -> None:
        raise AssertionError("nothing is written")
