"""Lists as async iterators, typed.

    async for wallet in iterate(client.wallets.ListWallets, ListWalletsRequest()):
        ...

Their stub, which is generated from the contract, knows what each list has rows of.
"""

from typing import TYPE_CHECKING

from zaaz_client import paging
from zaaz_client.paging import pages

if TYPE_CHECKING:
    from zaaz.lists import Iterate

__all__ = ["iterate", "pages"]

iterate: "Iterate" = paging.iterate
"""See `zaaz_client.paging.iterate`."""
