"""Features, made and changed in a line; rows of them without the engine."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bson import ObjectId
from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.catalog.v1 import feature_pb2 as pb

from server.kernel.errors import DomainError, Reason
from server.resources.fields import date
from tests.resources.conftest import Catalog

EPOCH_MS = 1_700_000_000_000


@contextmanager
def refused(reason: Reason, **metadata: object) -> Iterator[None]:
    with pytest.raises(DomainError) as caught:
        yield
    assert caught.value.reason is reason
    for key, value in metadata.items():
        assert caught.value.metadata[key] == str(value), caught.value.metadata


async def make(catalog: Catalog, value: str, **fields: Any) -> pb.Feature:
    feature = pb.Feature(name=fields.pop("name", value), value=value, **fields)
    made: pb.Feature = (await catalog.call(pb.CreateFeatureRequest(feature=feature))).feature
    return made


async def change(catalog: Catalog, feature: pb.Feature, *paths: str, **fields: Any) -> pb.Feature:
    given = pb.Feature(id=feature.id, **fields)
    request = pb.UpdateFeatureRequest(feature=given, update_mask=FieldMask(paths=paths))
    changed: pb.Feature = (await catalog.call(request)).feature
    return changed


async def delete(catalog: Catalog, feature: pb.Feature, **fields: Any) -> pb.Feature:
    request = pb.DeleteFeatureRequest(id=feature.id, **fields)
    deleted: pb.Feature = (await catalog.call(request)).feature
    return deleted


async def get(catalog: Catalog, feature: pb.Feature, **fields: Any) -> pb.Feature:
    request = pb.GetFeatureRequest(id=feature.id, **fields)
    got: pb.Feature = (await catalog.call(request)).feature
    return got


async def values(catalog: Catalog, **fields: Any) -> list[str]:
    return [one.value for one in (await catalog.call(pb.ListFeaturesRequest(**fields))).features]


PARENTS = [ObjectId() for _ in range(3)]
NAMES = ["", "a", "ab", "abc", "b", "AB", "é", 'q"x', "it's", "x\\y", "AND", "a b"]


def row(rng: random.Random) -> dict[str, Any]:
    """A row as the engine stores it, with few different values, so that they meet."""
    row_id = ObjectId()
    parent = rng.choice([None, *PARENTS])
    name = rng.choice(NAMES)
    fields = {} if parent is None else {"parent_id": parent}
    return fields | {
        "_id": row_id,
        "name": name,
        "value": str(row_id),
        "type": rng.randrange(4),
        "is_active": rng.random() < 0.5,
        "sequence": rng.randrange(-2, 3),
        "is_deleted": False,
        "created_time": date(EPOCH_MS + rng.randrange(4)),
        "updated_time": date(EPOCH_MS),
        "search_keys": [name.casefold(), str(row_id)],
        "version": 1,
        "guard": 0,
    }
