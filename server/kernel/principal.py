"""Who is calling."""

from contextvars import ContextVar
from dataclasses import dataclass

ADMIN = "admin"
"""The scope that passes every rule and sees what is internal."""

HOUSE_CLIENT = "zaaz"
"""The client_id of what happened by itself. No key is made for it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: a client, by one of its API keys."""

    client_id: str
    api_key_id: str
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        """Whether internal fields and other clients' rows are for it."""
        return ADMIN in self.scopes


_current: ContextVar[Principal] = ContextVar("principal")


def current_principal() -> Principal:
    """The caller of the RPC that is running. LookupError in a public method."""
    return _current.get()


def set_principal(principal: Principal) -> None:
    """Only the access layer calls this, once per RPC, in the RPC's own context."""
    _current.set(principal)
