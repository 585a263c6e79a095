"""CheckAccess where the user's package has to include the endpoint's feature, over a bare echo."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from zaaz.catalog.v1 import (
    feature_endpoint_pb2,
    feature_pb2,
    package_feature_pb2,
    package_pb2,
    package_plan_pb2,
    plan_pb2,
)
from zaaz.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.subscriptions.v1 import subscription_service_pb2
from zaaz.subscriptions.v1.subscription_service_pb2_grpc import SubscriptionServiceStub

from bench.consume import SPREAD_WALLETS, call_all, over_echo
from bench.holds import CHECKS, INPUT_TOKENS, MODEL, OUTPUT_TOKENS, Checks
from bench.pairs import Run, Sides
from bench.processes import BenchError
from bench.setting import Bench, tell

ROOTS, PARTS = 10, 19
"""Features at the top of the tree, and the parts of each: 200 in all. Each part has an endpoint."""
PACKAGE_COUNT = 50
INCLUDED_ROOTS = 5
"""What a package includes, with all below."""
WORDS = 100


class EntitledChecks(Checks):
    """CheckAccess of an endpoint that the user's package includes by a feature above it."""

    def __init__(self, bench: Bench, included: Mapping[str, Sequence[str]], refused: str) -> None:
        super().__init__(bench.channel, bench.served, list(included))
        self._included = included
        self._refused = refused

    async def prepare(self, operations: int) -> Run:
        """The same; and that an endpoint of another package's is refused is looked at too."""
        request = self.request()
        request.user_id, request.feature_endpoint = self._users[0], self._refused
        if (await self.check(request)).allowed:
            raise BenchError("a user may use what the package does not include")
        return await super().prepare(operations)

    def request(self) -> pb.CheckAccessRequest:
        """A use that the user has a package for."""
        user_id = self._random.choice(self._users)
        return pb.CheckAccessRequest(
            user_id=user_id,
            feature_endpoint=self._random.choice(self._included[user_id]),
            ai_model=MODEL,
            max_input_tokens=INPUT_TOKENS,
            max_output_tokens=OUTPUT_TOKENS,
            words=WORDS,
        )


class _Shop:
    """Makes what is sold, and gives it to users, as an operator would."""

    def __init__(self, bench: Bench) -> None:
        self._catalog: Any = CatalogServiceStub(bench.channel)
        self._subscriptions: Any = SubscriptionServiceStub(bench.channel)
        self._metadata = bench.served.metadata

    async def tree(self) -> dict[str, list[str]]:
        """The values of the endpoints below each feature at the top, by its id."""
        below: dict[str, list[str]] = {}
        for root in range(ROOTS):
            root_id = await self._feature(f"root-{root}")
            below[root_id] = [f"root-{root}.part-{part}" for part in range(PARTS)]
            await call_all(partial(self._part, root_id), below[root_id])
        return below

    async def package(self, number: int, roots: Sequence[str], plan_id: str) -> str:
        """The id of a package that includes these features."""
        value = f"package-{number}"
        made = package_pb2.Package(
            name=value, value=value, type=package_pb2.PACKAGE_TYPE_SUBSCRIPTION, is_active=True
        )
        package_id = str((await self._create("Package", package_pb2, made)).package.id)
        for root_id in roots:
            included = package_feature_pb2.PackageFeature(
                package_id=package_id, feature_id=root_id, is_active=True
            )
            await self._create("PackageFeature", package_feature_pb2, included)
        price = package_plan_pb2.PackagePlan(
            package_id=package_id,
            plan_id=plan_id,
            price=package_plan_pb2.Price(usd_micros=1_000_000),
            is_active=True,
        )
        await self._create("PackagePlan", package_plan_pb2, price)
        return package_id

    async def plan(self) -> str:
        """The id of a plan."""
        made = plan_pb2.Plan(name="Monthly", duration_days=30, is_active=True)
        return str((await self._create("Plan", plan_pb2, made)).plan.id)

    async def assign(self, user_id: str, package_id: str, plan_id: str) -> None:
        """Starts the package for the user."""
        request = subscription_service_pb2.AssignPackageRequest(
            request_id=uuid4().hex, user_id=user_id, package_id=package_id, plan_id=plan_id
        )
        await self._subscriptions.AssignPackage(request, metadata=self._metadata)

    async def _part(self, above: str, value: str) -> None:
        endpoint = feature_endpoint_pb2.FeatureEndpoint(
            feature_id=await self._feature(value, above), name=value, value=value, is_active=True
        )
        await self._create("FeatureEndpoint", feature_endpoint_pb2, endpoint)

    async def _feature(self, value: str, above: str = "") -> str:
        feature = feature_pb2.Feature(name=value, value=value, parent_id=above, is_active=True)
        return str((await self._create("Feature", feature_pb2, feature)).feature.id)

    async def _create(self, kind: str, module: Any, message: Any) -> Any:
        field = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).strip("_")
        request = getattr(module, f"Create{kind}Request")(**{field: message})
        return await getattr(self._catalog, f"Create{kind}")(request, metadata=self._metadata)


@asynccontextmanager
async def entitled(bench: Bench) -> AsyncIterator[Sides]:
    """CheckAccess with packages over a bare echo."""
    checks = await _sell(bench, await bench.wallets(SPREAD_WALLETS))
    async with over_echo(bench, checks, CHECKS, checks.request().ByteSize()) as sides:
        yield sides


async def _sell(bench: Bench, users: Sequence[str]) -> EntitledChecks:
    """A catalog, and one of its packages for each user."""
    chance, shop = random.Random(PACKAGE_COUNT), _Shop(bench)
    below = await shop.tree()
    plan_id = await shop.plan()
    roots = [chance.sample(list(below), INCLUDED_ROOTS) for _ in range(PACKAGE_COUNT)]
    packages = [await shop.package(number, each, plan_id) for number, each in enumerate(roots)]
    whose = {user_id: chance.randrange(PACKAGE_COUNT) for user_id in users}
    await call_all(lambda user_id: shop.assign(user_id, packages[whose[user_id]], plan_id), users)
    tell(f"{PACKAGE_COUNT} packages made, and one assigned to each user")
    included = {
        user_id: [value for root_id in roots[number] for value in below[root_id]]
        for user_id, number in whose.items()
    }
    left_out = next(each for each in below if each not in roots[whose[users[0]]])
    return EntitledChecks(bench, included, below[left_out][0])
