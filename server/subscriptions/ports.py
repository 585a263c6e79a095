"""What subscriptions need of others."""

from collections.abc import Mapping
from typing import Any, Protocol

from bson import ObjectId

from server.ledger.model import Terms
from server.ledger.riders import Rider


class Packages(Protocol):
    """What packages give. PACKAGE_NOT_SOLD, and DatabaseUnavailable, from every method."""

    async def present(self, package_id: ObjectId, plan_id: ObjectId) -> Terms:
        """What is sold now."""
        ...

    async def assignable(self, package_id: ObjectId, plan_id: ObjectId) -> Terms:
        """What there is now, switched off or not."""
        ...

    async def under(self, history_id: ObjectId, package_id: ObjectId, plan_id: ObjectId) -> Terms:
        """What was sold under a snapshot."""
        ...

    async def initial(self) -> Terms:
        """What users begin with. INITIAL_PACKAGE_MISSING."""
        ...


class Coupons(Protocol):
    """The uses of coupons."""

    async def discount_rider(
        self,
        code: str,
        user_id: str,
        package_id: ObjectId,
        now_ms: int,
        links: Mapping[str, Any] | None = None,
    ) -> tuple[ObjectId, Rider]:
        """The coupon's id, and what counts its use beside a purchase; its refusals.

        `links` is kept with the use.
        """
        ...
