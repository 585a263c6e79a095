"""Features and endpoints as a test wants them, made through the contract."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.catalog.v1 import feature_endpoint_pb2, feature_pb2

from tests.serving import Served, new_key


async def new_feature(served: Served, **fields: Any) -> Any:
    """A live feature of a value of its own."""
    values = {"name": "Chat", "value": f"chat-{new_key()}", "is_active": True, **fields}
    request = feature_pb2.CreateFeatureRequest(
        request_id=new_key(), feature=feature_pb2.Feature(**values)
    )
    return (await served.catalog.CreateFeature(request)).feature


async def change_feature(served: Served, feature_id: str, *paths: str, **fields: Any) -> Any:
    """The feature after the change of these fields, and of `paths` that are not set."""
    request = feature_pb2.UpdateFeatureRequest(
        feature=feature_pb2.Feature(id=feature_id, **fields),
        update_mask=FieldMask(paths=[*fields, *paths]),
    )
    return (await served.catalog.UpdateFeature(request)).feature


async def new_endpoint(
    served: Served, credits_micros: int = 0, effective_ms: int | None = None, **fields: Any
) -> Any:
    """A live endpoint of a value and, unless it is given, of a feature of its own."""
    feature_id = fields.pop("feature_id", "") or (await new_feature(served)).id
    values = {"name": "Send", "value": f"chat.send:{new_key()}", "is_active": True, **fields}
    request = feature_endpoint_pb2.CreateFeatureEndpointRequest(
        request_id=new_key(),
        feature_endpoint=feature_endpoint_pb2.FeatureEndpoint(
            feature_id=feature_id, credits_micros=credits_micros, **values
        ),
    )
    if effective_ms is not None:
        request.effective_time.FromMilliseconds(effective_ms)
    return (await served.catalog.CreateFeatureEndpoint(request)).feature_endpoint


async def change_endpoint(
    served: Served, endpoint_id: str, *paths: str, effective_ms: int | None = None, **fields: Any
) -> Any:
    """The endpoint after the change of these fields, and of `paths` that are not set."""
    request = feature_endpoint_pb2.UpdateFeatureEndpointRequest(
        feature_endpoint=feature_endpoint_pb2.FeatureEndpoint(id=endpoint_id, **fields),
        update_mask=FieldMask(paths=[*fields, *paths]),
    )
    if effective_ms is not None:
        request.effective_time.FromMilliseconds(effective_ms)
    return (await served.catalog.UpdateFeatureEndpoint(request)).feature_endpoint


async def delete_endpoint(served: Served, endpoint_id: str) -> Any:
    request = feature_endpoint_pb2.DeleteFeatureEndpointRequest(id=endpoint_id)
    return (await served.catalog.DeleteFeatureEndpoint(request)).feature_endpoint


async def restore_endpoint(served: Served, endpoint_id: str) -> Any:
    request = feature_endpoint_pb2.RestoreFeatureEndpointRequest(id=endpoint_id)
    return (await served.catalog.RestoreFeatureEndpoint(request)).feature_endpoint
