from zaaz.catalog.v1.feature_endpoint_pb2 import FeatureEndpoint, FeatureEndpointHistory
from zaaz.catalog.v1.feature_pb2 import Feature

from server.resources.model import History, Reference, Resource, Unique

FEATURE = Resource(
    Feature,
    "features",
    unique=(Unique(("value",)),),
    references=(Reference("parent_id", "features", expand="parent"),),
    filterable=("value", "name", "parent_id", "type", "is_active", "sequence", "created_time"),
    sortable=("name", "sequence", "type", "parent_id", "created_time"),
    searchable=("name", "value"),
    immutable=("value",),
)

ENDPOINT = Resource(
    FeatureEndpoint,
    "feature_endpoints",
    unique=(Unique(("value",)),),
    references=(Reference("feature_id", "features", expand="feature"),),
    filterable=("value", "feature_id"),
    sortable=("created_time",),
    history=History(
        FeatureEndpointHistory,
        "feature_endpoint_histories",
        "feature_endpoint_id",
        scheduled=("credits_micros",),
        filterable=("value",),
    ),
)
