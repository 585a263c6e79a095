"""Filling the price collections, at first run and by `python -m server seed`."""

import asyncio

from server.credits.prices.seed import Seed, SeedReport
from server.credits.prices.store import PriceStore
from server.kernel.clock import Clock

SEEDED = "seeded from"
IMPORTED = "imported from"


async def seed(store: PriceStore, clock: Clock) -> SeedReport:
    """Add the priced models of `genai-prices`, a credit price and a margin where there are none.

    Idempotent, and safe beside another one. What exists is left as it is, also
    where the package has newer prices for it. A start that finds
    `store.is_seeded()` spares itself the loading of the package. Raises
    DatabaseUnavailable, or TransactionLost when others keep writing the same.
    """
    # Loading and converting are a second's work of the CPU: not on the event loop.
    return await store.apply(await asyncio.to_thread(published, SEEDED), clock())


def published(why: str = IMPORTED) -> Seed:
    """The published list that the server carries; takes up to a second the first time."""
    # Loaded here, because few runs need it and every start would pay.
    from server.credits.prices.importing import package_seed

    return package_seed(why)
