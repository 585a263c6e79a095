"""What `make run` sells at its first start, and that it is only then."""

from pathlib import Path

import pytest
from zaaz.catalog.v1.offer_service_pb2 import CURRENCY_USD, ListOffersRequest
from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceStub
from zaaz.catalog.v1.package_pb2 import ListPackagesRequest, Package, UpdatePackageRequest
from zaaz.credits.v1.credits_process_service_pb2 import CheckAccessRequest
from zaaz.subscriptions.v1.subscription_service_pb2 import (
    ActivatePackageRequest,
    OnboardUserRequest,
)
from zaaz.subscriptions.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from zaaz_client.catalog_files import read_catalog

from tests.catalog.documents import apply, export, told
from tests.run.command import ROOT, ServerEnded
from tests.run.conftest import NewCommand
from tests.serving import connected, new_user

DEMO = ROOT / "demo" / "catalog.yaml"


async def test_it_is_there_once(new_command: NewCommand) -> None:
    server = new_command(demo_catalog=str(DEMO))
    ready = await server.start()
    document = read_catalog(DEMO.read_text(), "demo").document
    async with connected(ready["grpc"], ready["api_key"]) as served:
        assert told(await apply(served, document, dry_run=True, prune=True)) == []
        found = (await served.catalog.ListPackages(ListPackagesRequest())).packages
        row = next(one for one in found if one.value == "pro")
        change = Package(id=row.id, badge="Best")
        await served.catalog.UpdatePackage(UpdatePackageRequest(package=change))
        changed = await export(served)
    await server.stop()

    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        assert await export(served) == changed
    assert (await server.stop()).code == 0


async def test_it_sells_something(new_command: NewCommand) -> None:
    server = new_command(demo_catalog=str(DEMO))
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        offers = await OfferServiceStub(served.channel).ListOffers(
            ListOffersRequest(currency=CURRENCY_USD)
        )
        assert [one.value for one in offers.offers] == ["free", "pro", "pack"]
    assert (await server.stop()).code == 0


async def test_who_buys_credits_keeps_what_is_free(new_command: NewCommand) -> None:
    """A pack takes the place of a package that costs nothing, whose features would go with it."""
    server = new_command(demo_catalog=str(DEMO))
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        subscriptions, user_id = SubscriptionServiceStub(served.channel), new_user()
        question = CheckAccessRequest(user_id=user_id, feature_endpoint="chat.send")
        await subscriptions.OnboardUser(OnboardUserRequest(request_id="begin", user_id=user_id))
        assert (await served.process.CheckAccess(question)).allowed
        found = (await served.catalog.ListPackages(ListPackagesRequest())).packages
        pack = next(one for one in found if one.value == "pack")
        bought = ActivatePackageRequest(
            request_id="buy", user_id=user_id, package_id=pack.id, plan_id=pack.plans[0].plan_id
        )
        await subscriptions.ActivatePackage(bought)
        assert not (await served.process.CheckAccess(question)).denials
    assert (await server.stop()).code == 0


async def test_unless_it_is_told_there_is_nothing(new_command: NewCommand) -> None:
    server = new_command()
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        assert not (await export(served)).ByteSize()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plans: {m: {dais: 1}}", ":1:13: unknown key 'dais'; is 'days' meant?"),
        ("plans: {m: {days: -1}}", "document.plans[0].plan.duration_days"),
    ],
)
async def test_a_wrong_file_is_told(
    new_command: NewCommand, tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(text)
    with pytest.raises(ServerEnded, match=r"exit code 1: zaaz: ZAAZ_DEMO_CATALOG: ") as ended:
        await new_command(demo_catalog=str(file)).start()
    assert told in str(ended.value)


def test_make_run_tells_it() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert '"$${ZAAZ_DEMO_CATALOG-demo/catalog.yaml}"' in makefile
