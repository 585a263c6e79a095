"""What a feature usage log is, for the resource engine: rows that are listed and read."""

from typing import Final

from zaaz.credits.v1.feature_usage_log_pb2 import FeatureUsageLog

from server.mongo.schema import Index
from server.resources.model import Resource

FEATURE_USAGE_LOGS: Final = Resource(
    FeatureUsageLog,
    "feature_usage_logs",
    filterable=(
        "user_id",
        "feature_endpoint_id",
        "feature_endpoint",
        "usage_key",
        "status",
        "code",
        "method",
        "type",
        "client_id",
        "occurred_time",
        "created_time",
    ),
    sortable=("occurred_time", "created_time"),
    order="occurred_time desc",
    # MongoDB forgets a row within a minute of its time.
    indexes=(Index((("expires_time", 1),), expire_after_seconds=0),),
    read_only=True,
)
