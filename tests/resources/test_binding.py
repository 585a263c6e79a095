"""Declarations, codecs, and which methods a servicer gets."""

from typing import Any

import pytest
from bson import BSON, ObjectId
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st
from zaaz.catalog.v1 import catalog_service_pb2, feature_endpoint_pb2, feature_pb2
from zaaz.catalog.v1.catalog_service_pb2_grpc import (
    CatalogServiceServicer,
    add_CatalogServiceServicer_to_server,
)
from zaaz.credits.v1 import ai_model_pb2, feature_usage_log_pb2

from server.kernel.clock import system_clock
from server.kernel.paging import PageTokens
from server.mongo.database import Database
from server.resources.binder import bind
from server.resources.codec import Codec
from server.resources.engine import Resources
from server.resources.model import History, Reference, Resource, Unique
from server.rpc.address import parse_address
from server.rpc.drain import Drain
from server.rpc.edge import Edge
from server.rpc.kinds import is_written
from server.rpc.logs import configure_logging
from server.rpc.server import CannotServeError, RpcServer
from server.rpc.telemetry import Telemetry
from tests.resources.conftest import CATALOG
from tests.resources.declared import ENDPOINT, FEATURE
from tests.serving import SECRET

NAMES = ("Feature", "FeatureEndpoint")

texts = st.text(max_size=5)
ids = st.just("") | st.binary(min_size=12, max_size=12).map(lambda raw: str(ObjectId(raw)))
numbers = st.integers(-(2**63), 2**63 - 1)
times = st.integers(0, 253_402_300_799_999)


@given(
    text=texts,
    parent=ids,
    number=numbers,
    flag=st.booleans(),
    time=st.none() | times,
    limit=st.none() | numbers,
    parts=st.lists(st.integers(0, 4), max_size=3),
)
def test_documents_carry_everything(
    text: str,
    parent: str,
    number: int,
    flag: bool,
    time: int | None,
    limit: int | None,
    parts: list[Any],
) -> None:
    endpoint = feature_endpoint_pb2.FeatureEndpoint(
        id=str(ObjectId()),
        feature_id=parent,
        name=text,
        credits_micros=number,
        is_active=flag,
        captured_parts=parts,
    )
    if time is not None:
        endpoint.created_time.FromMilliseconds(time)
    if limit is not None:
        endpoint.max_word.paid = limit
    assert through_bson(Codec(feature_endpoint_pb2.FeatureEndpoint), endpoint) == endpoint


@given(
    metadata=st.dictionaries(st.text("abc_./-", min_size=1, max_size=4), texts, max_size=3),
    tiers=st.lists(st.tuples(numbers, st.none() | numbers), max_size=3),
    price=st.none() | numbers,
)
def test_documents_carry_maps_lists_and_what_is_unset(
    metadata: dict[str, str], tiers: list[tuple[int, int | None]], price: int | None
) -> None:
    model = ai_model_pb2.AiModel(metadata=metadata)
    if price is not None:
        model.prices.cache_read_token_price_micros = price
    for bound, cache in tiers:
        tier = model.prices.tiers.add(above_input_tokens=bound)
        if cache is not None:
            tier.cache_read_token_price_micros = cache
    codec = Codec(ai_model_pb2.AiModel)
    assert through_bson(codec, model) == model
    assert "etag" not in codec.encode(model)


def test_ids_are_object_ids_and_the_callers_own_are_text() -> None:
    user = ObjectId()
    log = feature_usage_log_pb2.FeatureUsageLog(user_id=str(user), client_id="partner")
    document = Codec(feature_usage_log_pb2.FeatureUsageLog).encode(log)
    assert (document["user_id"], document["client_id"]) == (user, "partner")
    assert Codec(feature_usage_log_pb2.FeatureUsageLog, ("user_id",)).encode(log)["user_id"] == str(
        user
    )


def through_bson(codec: Codec, message: Any) -> Any:
    document = BSON.encode(codec.encode(message))
    options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
    return codec.decode(document.decode(options))


@pytest.mark.parametrize(
    "fields",
    [
        {"filterable": ("nothing",)},
        {"unique": (Unique(("nothing",)),)},
        {"references": (Reference("nothing", "features"),)},
        {"references": (Reference("feature_id", "features", expand="nothing"),)},
        {"immutable": ("nothing",)},
        {"filterable": ("credits_micros",)},
        {"sortable": ("credits_micros",)},
    ],
    ids=str,
)
def test_a_declaration_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    message = feature_endpoint_pb2.FeatureEndpoint
    history = History(
        feature_endpoint_pb2.FeatureEndpointHistory,
        "histories",
        "feature_endpoint_id",
        scheduled=("credits_micros",),
    )
    with pytest.raises(ValueError, match="feature_endpoints: "):
        Resource(message, "feature_endpoints", history=history, **fields)


def engine(database: Database) -> Resources:
    return Resources(database, system_clock, PageTokens(SECRET), (FEATURE, ENDPOINT))


def rpc_server() -> RpcServer:
    edge = Edge(None, lambda _: None, Drain(), Telemetry(configure_logging("ERROR")))  # type: ignore[arg-type]
    return RpcServer(parse_address("127.0.0.1:0"), edge)


async def test_a_written_method_wins(database: Database) -> None:
    class Servicer(CatalogServiceServicer):
        async def GetFeature(self, request: Any, context: Any) -> Any:  # noqa: N802
            return feature_pb2.GetFeatureResponse(feature=feature_pb2.Feature(name="written"))

    written: Any = Servicer
    servicer = written()
    bind(servicer, CATALOG, engine(database), FEATURE, ENDPOINT)
    answer = await servicer.GetFeature(feature_pb2.GetFeatureRequest(), None)
    assert answer.feature.name == "written"


async def test_every_method_of_what_is_declared_is_bound(database: Database) -> None:
    base: Any = CatalogServiceServicer
    servicer = base()
    bind(servicer, CATALOG, engine(database), FEATURE, ENDPOINT)
    bound = {one.name for one in CATALOG.methods if is_written(getattr(servicer, one.name))}
    one = ("Get", "Create", "Update", "Delete", "Restore", "Purge")
    expected = {f"{verb}{name}" for verb in one for name in NAMES}
    many = {f"{verb}{name}s" for verb in ("List", "BatchDelete") for name in NAMES}
    read = {"GetFeatureEndpointHistory", "ListFeatureEndpointHistories"}
    assert bound == expected | many | read


async def test_a_method_that_nothing_defines_is_named_at_start(database: Database) -> None:
    base: Any = CatalogServiceServicer
    servicer = base()
    bind(servicer, CATALOG, engine(database), FEATURE)
    rpc_server().add(add_CatalogServiceServicer_to_server, servicer)
    with pytest.raises(CannotServeError) as caught:
        rpc_server().add(add_CatalogServiceServicer_to_server, servicer, complete=True)
    assert "CatalogService/PurgeFeatureEndpoint" in str(caught.value)
    assert "CatalogService/GetFeatureEndpointHistory" in str(caught.value)
    assert "CatalogService/GetFeature," not in str(caught.value)
    assert catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"] is CATALOG
