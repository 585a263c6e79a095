"""Endpoints to be used, interactions with them, and what is kept of those."""

import time
from typing import Any, Literal

from google.protobuf.struct_pb2 import Value
from zaaz.catalog.v1 import feature_endpoint_pb2 as endpoint_pb
from zaaz.catalog.v1 import feature_pb2
from zaaz.credits.v1 import feature_usage_log_pb2 as pb

from tests.serving import Served, new_key

PartName = Literal["params", "query", "payload", "response"]
PARTS: tuple[PartName, ...] = ("params", "query", "payload", "response")
ALL_PARTS = (
    endpoint_pb.CAPTURED_PART_PARAMS,
    endpoint_pb.CAPTURED_PART_QUERY,
    endpoint_pb.CAPTURED_PART_PAYLOAD,
    endpoint_pb.CAPTURED_PART_RESPONSE,
)


async def new_endpoint(served: Served, **fields: Any) -> endpoint_pb.FeatureEndpoint:
    """An endpoint of a feature of its own; it keeps nothing unless `captured_parts` say so."""
    name = new_key()
    feature = feature_pb2.Feature(name=name, value=name, is_active=True)
    created = await served.catalog.CreateFeature(feature_pb2.CreateFeatureRequest(feature=feature))
    values = {
        "name": name,
        "value": f"chat.{name}",
        "endpoint": "/v1/chat",
        "method": endpoint_pb.HTTP_METHOD_POST,
        "is_active": True,
        **fields,
    }
    endpoint = endpoint_pb.FeatureEndpoint(feature_id=created.feature.id, **values)
    request = endpoint_pb.CreateFeatureEndpointRequest(feature_endpoint=endpoint)
    made: endpoint_pb.CreateFeatureEndpointResponse = await served.catalog.CreateFeatureEndpoint(
        request
    )
    return made.feature_endpoint


def interaction(user_id: str, feature_endpoint: str, **fields: Any) -> pb.FeatureUsageEvent:
    """A successful one of now, with a key of its own."""
    now_ms = fields.pop("occurred_ms", None) or time.time_ns() // 1_000_000
    values = {
        "usage_key": new_key(),
        "code": 200,
        "status": pb.FEATURE_USAGE_STATUS_SUCCESS,
        **fields,
    }
    event = pb.FeatureUsageEvent(user_id=user_id, feature_endpoint=feature_endpoint, **values)
    event.occurred_time.FromMilliseconds(now_ms)
    return event


def json_value(python: Any) -> Value:
    """A part of an interaction."""
    value = Value()
    if isinstance(python, dict):
        value.struct_value.SetInParent()
        value.struct_value.update(python)
    elif isinstance(python, list):
        value.list_value.SetInParent()
        value.list_value.extend(python)
    elif isinstance(python, str):
        value.string_value = python
    else:
        value.number_value = python
    return value


def parts_of(kept: pb.FeatureUsageLog) -> list[str]:
    """Which of its parts are kept."""
    return [part for part in PARTS if kept.HasField(part)]


async def keep(served: Served, *events: pb.FeatureUsageEvent) -> list[pb.RecordFeatureUsageResult]:
    """Record them in one call."""
    answer = await served.usage.RecordFeatureUsage(pb.RecordFeatureUsageRequest(events=events))
    return list(answer.results)


async def row(served: Served, row_id: str) -> pb.FeatureUsageLog:
    """One that is kept."""
    request = pb.GetFeatureUsageLogRequest(id=row_id)
    answer: pb.GetFeatureUsageLogResponse = await served.usage.GetFeatureUsageLog(request)
    return answer.feature_usage_log


async def rows(served: Served, filter_: str, **fields: Any) -> list[pb.FeatureUsageLog]:
    """Those that match, from the first page on to the last."""
    found: list[pb.FeatureUsageLog] = []
    token = ""
    while True:
        page = await served.usage.ListFeatureUsageLogs(
            pb.ListFeatureUsageLogsRequest(filter=filter_, page_token=token, **fields)
        )
        found += page.feature_usage_logs
        token = page.next_page_token
        if not token:
            return found


async def rows_of(served: Served, user_id: str) -> list[pb.FeatureUsageLog]:
    """All that is kept of a user, newest first."""
    return await rows(served, f'user_id = "{user_id}"')
