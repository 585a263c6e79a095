"""An interaction as it is kept, and what has to be known of an endpoint for that."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

from bson import ObjectId

from server.kernel.clock import DAY_MS

RETENTION_MS = 90 * DAY_MS
"""For how long a row is kept, from when it came."""


class FeatureUsage(NamedTuple):
    """One interaction, redacted. `id` is derived from client, user and usage_key.

    `parts` are JSON texts by the names of their fields.
    """

    id: ObjectId
    client_id: str
    user_id: ObjectId
    email: str
    usage_key: str
    feature_endpoint_id: ObjectId
    feature_endpoint: str
    endpoint: str
    method: str
    code: int
    status: int
    type: str
    parts: Mapping[str, str]
    truncated_parts: tuple[str, ...]
    occurred_ms: int


class LoggedEndpoint(Protocol):
    """The port to the catalog: a live endpoint."""

    @property
    def id(self) -> ObjectId:
        """Its row's."""

    @property
    def endpoint(self) -> str:
        """Its path."""

    @property
    def method(self) -> str:
        """As in HTTP."""

    @property
    def captured_parts(self) -> AbstractSet[int]:
        """Values of `zaaz.catalog.v1.CapturedPart`."""


FindEndpoint = Callable[[str], LoggedEndpoint | None]
"""The live endpoint of this value."""
