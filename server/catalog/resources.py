"""What features and their endpoints are, for the resource engine."""

from typing import Final

from zaaz.catalog.v1.feature_endpoint_pb2 import FeatureEndpoint, FeatureEndpointHistory
from zaaz.catalog.v1.feature_pb2 import Feature

from server.catalog.tree import FEATURES as FEATURES_COLLECTION
from server.catalog.tree import guard_feature
from server.catalog.versions import HISTORIES, guard_endpoint
from server.resources.model import History, Reference, Resource, Unique

FEATURES: Final = Resource(
    Feature,
    FEATURES_COLLECTION,
    unique=(Unique(("value",)),),
    references=(Reference("parent_id", FEATURES_COLLECTION, expand="parent"),),
    filterable=(
        "value",
        "parent_id",
        "type",
        "sequence",
        "is_active",
        "created_time",
        "updated_time",
    ),
    sortable=("name", "value", "sequence", "created_time", "updated_time"),
    searchable=("name", "value"),
    output_only=("parent",),
    guard=guard_feature,
)

FEATURE_ENDPOINTS: Final = Resource(
    FeatureEndpoint,
    "feature_endpoints",
    unique=(Unique(("value",)),),
    references=(Reference("feature_id", FEATURES_COLLECTION, expand="feature"),),
    filterable=("value", "feature_id", "method", "is_active", "created_time", "updated_time"),
    sortable=("name", "value", "created_time", "updated_time"),
    searchable=("name", "value"),
    output_only=("feature",),
    immutable=("value",),
    guard=guard_endpoint,
    history=History(
        FeatureEndpointHistory,
        HISTORIES,
        "feature_endpoint_id",
        scheduled=("credits_micros",),
        filterable=("value",),
    ),
)
