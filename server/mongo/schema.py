"""What a domain declares of its collections. `Database.prepare` makes it so at start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Index:
    """One index: `(field, 1 or -1)` pairs in order; `partial` is its filter expression."""

    keys: tuple[tuple[str, int], ...]
    unique: bool = False
    partial: Mapping[str, Any] | None = None
    expire_after_seconds: int | None = None

    @property
    def name(self) -> str:
        """MongoDB's own default name, e.g. `user_id_1_create_time_-1`."""
        return "_".join(f"{field}_{direction}" for field, direction in self.keys)

    def definition(self) -> dict[str, Any]:
        """The index as `createIndexes` takes it and `listIndexes` gives it back."""
        definition: dict[str, Any] = {"key": dict(self.keys), "name": self.name}
        if self.unique:
            definition["unique"] = True
        if self.partial is not None:
            definition["partialFilterExpression"] = dict(self.partial)
        if self.expire_after_seconds is not None:
            definition["expireAfterSeconds"] = self.expire_after_seconds
        return definition


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection and its indexes besides `_id`."""

    name: str
    indexes: tuple[Index, ...] = ()
