"""The usage stream's spool: events on disk until the server has acknowledged them."""

from zaaz_client.spool.errors import (
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    SpoolOfAnotherWriter,
)
from zaaz_client.spool.reading import spooled_events
from zaaz_client.spool.settings import SpoolSettings, WhenFull
from zaaz_client.spool.spool import Spool, SpoolStatus

__all__ = [
    "Spool",
    "SpoolDamaged",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "SpoolOfAnotherWriter",
    "SpoolSettings",
    "SpoolStatus",
    "WhenFull",
    "spooled_events",
]
