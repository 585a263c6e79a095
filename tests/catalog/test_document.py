"""The catalog as a document: what is told, what is done, what is refused."""

import asyncio
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.catalog.v1 import catalog_document_pb2 as pb
from zaaz.catalog.v1.coupon_pb2 import (
    Coupon,
    ListCouponsRequest,
)
from zaaz.catalog.v1.feature_endpoint_pb2 import ListFeatureEndpointHistoriesRequest
from zaaz.catalog.v1.feature_pb2 import (
    DeleteFeatureRequest,
    Feature,
    ListFeaturesRequest,
)
from zaaz.catalog.v1.package_history_pb2 import ListPackageHistoriesRequest
from zaaz.catalog.v1.package_pb2 import (
    ListPackagesRequest,
    Package,
    UpdatePackageRequest,
)
from zaaz.catalog.v1.plan_pb2 import CreatePlanRequest, Plan

from server.catalog.packages.parts import MAX_FEATURES
from tests.catalog.documents import (
    apply,
    export,
    feature,
    fields,
    included,
    package,
    plan,
    popup,
    price,
    refusal,
    shop,
    told,
)
from tests.ledger.calls import refused
from tests.serving import Served, new_key

from .conftest import DATABASE


async def packages(served: Served, **query: Any) -> dict[str, Package]:
    found = await served.catalog.ListPackages(ListPackagesRequest(**query))
    return {one.value: one for one in found.packages}


async def etags(served: Served) -> list[str]:
    """Of all packages and features: another one after any change."""
    rows = [*(await packages(served)).values()]
    found = await served.catalog.ListFeatures(ListFeaturesRequest(order_by="value asc"))
    return [f"{one.id} {one.etag}" for one in (*rows, *found.features)]


async def snapshots(served: Served) -> int:
    found = await served.catalog.ListPackageHistories(
        ListPackageHistoriesRequest(with_total_size=True)
    )
    return int(found.total_size)


class TestApply:
    async def test_makes_all_of_it(self, empty: Served) -> None:
        answer = await apply(empty, shop())
        assert answer.applied
        assert answer.unchanged == 0
        assert told(answer)[:3] == [
            "CREATE features ai",
            "CREATE features chat",
            "CREATE features images",
        ]
        assert len(answer.differences) == 18
        assert fields(answer, "chat") == {
            "name": ("", '"Chat"'),
            "path": ("", '"/chat"'),
            "type": ("", '"FEATURE_TYPE_WRITING"'),
            "max_word": ("", '{"free":"100","paid":"1000"}'),
            "is_active": ("", "true"),
            "parent": ("", '"ai"'),
        }
        found = await packages(empty)
        assert found["free"].is_initial
        assert not found["pro"].is_initial

    async def test_again_changes_nothing(self, empty: Served) -> None:
        await apply(empty, shop())
        before, count = await etags(empty), await snapshots(empty)
        answer = await apply(empty, shop())
        assert not answer.differences
        assert answer.unchanged == 18
        assert answer.applied
        assert (await etags(empty), await snapshots(empty)) == (before, count)

    async def test_unclean_html_is_the_same_once_it_is_clean(self, empty: Served) -> None:
        document = pb.CatalogDocument(
            packages=[package("pro", content="<p onclick='x()'>Hi<script>bad()</script>")]
        )
        await apply(empty, document)
        assert not (await apply(empty, document)).differences

    async def test_tells_what_changes(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        document.packages[1].package.badge = "Best"
        document.packages[1].plans[1].package_plan.price.usd_micros = 89_000_000
        document.packages[1].features[1].CopyFrom(included("ai", 2))
        document.feature_endpoints[1].feature = "chat"
        document.coupons[0].packages.append("free")
        answer = await apply(empty, document)
        assert told(answer) == [
            "UPDATE feature_endpoints images.draw",
            "UPDATE packages pro",
            "UPDATE package_plans pro/yearly",
            "CREATE package_features pro/ai",
            "UPDATE coupons WELCOME10",
            "DELETE package_features pro/images",
        ]
        assert answer.unchanged == 18 - 5
        assert fields(answer, "images.draw") == {"feature": ('"images"', '"chat"')}
        assert fields(answer, "pro") == {"badge": ('"Popular"', '"Best"')}
        assert fields(answer, "pro/yearly") == {
            "price": ('{"usd_micros":"99000000"}', '{"usd_micros":"89000000"}')
        }
        assert fields(answer, "WELCOME10") == {"packages": ('["pro"]', '["free","pro"]')}
        assert not (await apply(empty, document)).differences

    async def test_a_dry_run_tells_the_same_and_changes_nothing(self, empty: Served) -> None:
        assert await apply(empty, pb.CatalogDocument(), dry_run=True) == pb.ApplyCatalogResponse()
        planned = await apply(empty, shop(), dry_run=True)
        assert not planned.applied
        assert await export(empty) == pb.CatalogDocument()
        assert (await apply(empty, shop())).differences == planned.differences
        before = await export(empty), await etags(empty), await snapshots(empty)
        changed = pb.CatalogDocument(packages=[package("pro", [price("monthly", 1)])])
        planned = await apply(empty, changed, dry_run=True, prune=False)
        assert before == (await export(empty), await etags(empty), await snapshots(empty))
        assert (await apply(empty, changed)).differences == planned.differences

    async def test_a_dry_run_is_refused_as_the_application_is(self, empty: Served) -> None:
        await apply(empty, shop())
        assert (await apply(empty, pb.CatalogDocument(), prune=True, dry_run=True)).differences
        document = pb.CatalogDocument(
            features=[feature(f"f{i}", f"f{i - 1}") for i in range(1, 30)]
        )
        document.features[0].parent = ""
        for dry_run in (True, False):
            reason, wrong = await refusal(apply(empty, document, dry_run=dry_run))
            assert (reason, list(wrong)) == (
                "FIELD_INVALID",
                ["document.features[16].feature.parent_id"],
            )

    async def test_a_dry_run_is_refused_at_its_very_end_too(self, empty: Served) -> None:
        names = [f"f{i}" for i in range(MAX_FEATURES + 1)]
        document = pb.CatalogDocument(
            features=[feature(name) for name in names], packages=[package("p", features=names)]
        )
        with refused("FIELD_INVALID"):
            await apply(empty, document, dry_run=True)

    async def test_the_same_request_is_done_once(self, empty: Served) -> None:
        request_id = new_key()
        first = await apply(empty, shop(), request_id=request_id)
        assert await apply(empty, shop(), request_id=request_id) == first
        with refused("REQUEST_ID_REUSED"):
            await apply(empty, shop(), request_id=request_id, prune=True)

    async def test_at_once_is_as_one_after_the_other(self, empty: Served) -> None:
        answers = await asyncio.gather(*(apply(empty, shop()) for _ in range(4)))
        assert sorted(len(answer.differences) for answer in answers) == [0, 0, 0, 18]

    async def test_what_the_caller_may_not_say_is_ignored(self, empty: Served) -> None:
        document = shop()
        await apply(empty, document)
        for item in document.features:
            item.feature.MergeFrom(
                Feature(
                    id="x",
                    etag="y",
                    parent_id="z",
                    is_deleted=True,
                    created_time=Timestamp(seconds=1),
                )
            )
        document.coupons[0].coupon.usage_count = 7
        document.packages[1].package.history_id = "x"
        assert not (await apply(empty, document)).differences


class TestDeleted:
    async def test_a_deleted_row_comes_back(self, empty: Served) -> None:
        await apply(empty, shop())
        before = await packages(empty)
        answer = await apply(empty, pb.CatalogDocument(), prune=True)
        assert len(answer.differences) == 18
        assert {one.action for one in answer.differences} == {pb.CATALOG_ACTION_DELETE}
        assert await export(empty) == pb.CatalogDocument()
        document = shop()
        document.packages[1].package.badge = "Back"
        answer = await apply(empty, document)
        assert {one.action for one in answer.differences} == {pb.CATALOG_ACTION_RESTORE}
        assert fields(answer, "pro") == {"badge": ('"Popular"', '"Back"')}
        assert fields(answer, "ALL20") == {}
        assert {name: one.id for name, one in before.items()} == {
            name: one.id for name, one in (await packages(empty)).items()
        }
        assert not (await apply(empty, document)).differences

    async def test_prices_come_back_with_their_endpoints(self, empty: Served) -> None:
        await apply(empty, shop())
        await apply(empty, pb.CatalogDocument(), prune=True)
        await apply(empty, shop())
        request = ListFeatureEndpointHistoriesRequest(filter='value = "chat.send"')
        found = await empty.catalog.ListFeatureEndpointHistories(request)
        rows = sorted(found.feature_endpoint_histories, key=lambda row: row.id)
        assert [row.is_deleted for row in rows] == [False, True, False]
        assert rows[-1].credits_micros == 500_000

    async def test_what_linked_a_namesake_stays_deleted(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        del document.packages[1].plans[1:], document.plans[1:]
        await apply(empty, document, prune=True)
        made = Plan(name="yearly", duration_days=360, is_active=True)
        made = (await empty.catalog.CreatePlan(CreatePlanRequest(plan=made))).plan
        assert "CREATE package_plans pro/yearly" in told(await apply(empty, shop()))
        row = (await packages(empty))["pro"].plans[1]
        assert (row.plan_id, row.plan.duration_days) == (made.id, 365)

    async def test_a_package_keeps_what_others_leave_out(self, empty: Served) -> None:
        await apply(empty, shop())
        document = pb.CatalogDocument(packages=[shop().packages[0]])
        assert not (await apply(empty, document)).differences
        assert len((await export(empty)).packages) == 2

    async def test_prune_deletes_what_is_left_out(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        del document.feature_popups[:], document.coupons[1:], document.packages[1].plans[1:]
        del document.plans[1:]
        answer = await apply(empty, document, prune=True)
        assert told(answer) == [
            "DELETE package_plans pro/yearly",
            "DELETE coupons ALL20",
            "DELETE feature_popups welcome",
            "DELETE plans yearly",
        ]
        assert not (await apply(empty, await export(empty), prune=True)).differences

    async def test_prune_does_not_count_what_goes(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        del document.features[2:], document.feature_endpoints[1:]
        reason, wrong = await refusal(apply(empty, document, prune=True))
        assert (reason, list(wrong)) == (
            "REFERENCE_NOT_FOUND",
            ["document.packages[1].features[1].feature"],
        )

    async def test_one_that_others_need_stays(self, empty: Served) -> None:
        await apply(empty, shop())
        (row,) = (
            await empty.catalog.ListFeatures(ListFeaturesRequest(filter='value = "images"'))
        ).features
        with refused("STILL_REFERENCED"):
            await empty.catalog.DeleteFeature(DeleteFeatureRequest(id=row.id))


class TestInitial:
    async def test_another_package_becomes_initial(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        document.packages[0].package.is_initial = False
        document.packages[1].package.is_initial = True
        answer = await apply(empty, document)
        assert sorted(told(answer)) == ["UPDATE packages free", "UPDATE packages pro"]
        assert fields(answer, "free") == {"is_initial": ("true", "false")}
        found = await packages(empty)
        assert [found["free"].is_initial, found["pro"].is_initial] == [False, True]
        assert not (await apply(empty, document)).differences

    async def test_one_that_the_document_leaves_out_gives_way(self, empty: Served) -> None:
        await apply(empty, shop())
        document = pb.CatalogDocument(packages=[package("new", is_initial=True)])
        answer = await apply(empty, document)
        assert told(answer) == ["CREATE packages new", "UPDATE packages free"]
        assert fields(answer, "free") == {"is_initial": ("true", "false")}
        found = await packages(empty)
        assert [found["free"].is_initial, found["new"].is_initial] == [False, True]

    async def test_another_plan_becomes_initial_and_the_old_one_goes(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        del document.packages[1].plans[0]
        document.packages[1].plans[0].package_plan.is_initial = True
        answer = await apply(empty, document)
        assert told(answer) == [
            "UPDATE package_plans pro/yearly",
            "DELETE package_plans pro/monthly",
        ]
        assert not (await apply(empty, document)).differences

    async def test_unsaid_it_stays_where_it_is(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        for item in document.packages:
            item.package.is_initial = False
            for row in item.plans:
                row.package_plan.is_initial = False
        assert not (await apply(empty, document)).differences

    async def test_unsaid_it_is_the_first(self, empty: Served) -> None:
        document = pb.CatalogDocument(
            plans=[plan("m"), plan("y")],
            packages=[package("a", [price("y"), price("m")]), package("b")],
        )
        answer = await apply(empty, document)
        assert [
            one.name
            for one in answer.differences
            if any(field.field == "is_initial" for field in one.fields)
        ] == ["a", "a/y"]
        assert not (await apply(empty, document)).differences

    async def test_unsaid_the_next_one_takes_it(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        del document.packages[1].plans[0]
        answer = await apply(empty, document)
        assert fields(answer, "pro/yearly") == {"is_initial": ("false", "true")}
        document = shop()
        del document.packages[0]
        assert fields(await apply(empty, document, prune=True), "pro") == {
            "is_initial": ("false", "true")
        }
        assert not (await apply(empty, document, prune=True)).differences

    async def test_one_that_comes_back_takes_it_again(self, empty: Served) -> None:
        await apply(empty, shop())
        document = shop()
        del document.packages[0], document.packages[0].plans[0]
        await apply(empty, document, prune=True)
        answer = await apply(empty, shop())
        assert fields(answer, "pro") == {"is_initial": ("true", "false")}
        assert not (await apply(empty, shop())).differences
        found = await packages(empty)
        assert [found["free"].is_initial, found["pro"].is_initial] == [True, False]

    async def test_two_are_refused(self, empty: Served) -> None:
        document = shop()
        document.packages[1].package.is_initial = True
        reason, wrong = await refusal(apply(empty, document))
        assert (reason, list(wrong)) == (
            "FIELD_INVALID",
            ["document.packages[1].package.is_initial"],
        )
        document = shop()
        document.packages[1].plans[1].package_plan.is_initial = True
        reason, wrong = await refusal(apply(empty, document))
        assert (reason, list(wrong)) == (
            "FIELD_INVALID",
            ["document.packages[1].plans[1].package_plan.is_initial"],
        )

    async def test_what_others_changed_meanwhile_is_compared(self, empty: Served) -> None:
        await apply(empty, shop())
        row = (await packages(empty))["pro"]
        change = Package(id=row.id, is_initial=True)
        await empty.catalog.UpdatePackage(UpdatePackageRequest(package=change))
        answer = await apply(empty, shop())
        assert sorted(told(answer)) == ["UPDATE packages free", "UPDATE packages pro"]


class TestAnswer:
    async def test_long_values_are_cut(self, empty: Served) -> None:
        document = pb.CatalogDocument(packages=[package("p", content="x" * 40_000)])
        answer = await apply(empty, document)
        after = fields(answer, "p")["content"][1]
        assert len(after) < 600
        assert after.endswith("… 39,502 more")

    async def test_it_fits_a_message(self, empty: Served) -> None:
        texts = dict.fromkeys(("image", "video"), "x" * 499)
        document = pb.CatalogDocument(
            features=[feature("a", description="x" * 499)],
            feature_popups=[popup(f"p{i}", "a", content="y" * 499, **texts) for i in range(1_900)],
        )
        answer = await apply(empty, document, dry_run=True)
        assert len(answer.differences) == 1_901
        assert answer.ByteSize() < 4 * 1024 * 1024

    async def test_usage_of_a_coupon_stays(self, empty: Served, mongo_client: Any) -> None:
        await apply(empty, shop())
        coupons = mongo_client[DATABASE]["coupons"]
        await coupons.update_one({"code": "ALL20"}, {"$set": {"usage_count": 3}})
        document = shop()
        document.coupons[1].coupon.description = "Used"
        await apply(empty, document)
        (row,) = (
            await empty.catalog.ListCoupons(ListCouponsRequest(filter='code = "ALL20"'))
        ).coupons
        assert (row.usage_count, row.description) == (3, "Used")
        assert (await export(empty)).coupons[0].coupon == Coupon(
            code="ALL20",
            description="Used",
            discount_type=row.discount_type,
            discount_ppm=row.discount_ppm,
            is_active=True,
        )
