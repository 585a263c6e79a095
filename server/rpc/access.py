"""Who may call: the contract's access option against the caller's API key.

A stream of responses can also be opened with a ticket that a key has made for it.
Checked before anything else about a request: who may not call a method does
not learn whether its request was well-formed or its row exists.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from zaaz.common.v1 import access_pb2

from server.kernel.errors import DomainError, Reason
from server.kernel.principal import ADMIN, Principal, set_principal
from server.rpc.call import Call, Method, Step

PUBLIC_SERVICES: Final = frozenset(
    {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.reflection.v1.ServerReflection",
    }
)
"""Not ours, so without our option; reflection is served only when it is switched on."""

_AUTHORIZATION = "authorization"
_BEARER = "bearer "
_TICKET = "ticket "
_MAX_TOKEN_CHARACTERS = 512


class Authenticator(Protocol):
    """Knows API keys."""

    async def authenticate(self, token: str) -> Principal:
        """Whose key it is; CREDENTIALS_INVALID, API_KEY_EXPIRED or API_KEY_REVOKED."""
        ...

    async def authenticate_ticket(self, ticket: str, method: str, raw: bytes) -> Principal:
        """Whose ticket it is that opens the stream `method` with these bytes; TICKET_INVALID."""
        ...

    def watch(self, principal: Principal, end: Callable[[DomainError], None]) -> Callable[[], None]:
        """Call `end` when the principal's key ends, until the returned function is called."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method: anyone, or keys with one of `scopes`. Neither: nobody."""

    public: bool = False
    scopes: frozenset[str] = frozenset()

    @property
    def is_closed(self) -> bool:
        """Nobody may call it."""
        return not self.public and not self.scopes

    def check(self, principal: Principal) -> None:
        """SCOPE_MISSING of a principal that may not call it."""
        if self.scopes.isdisjoint(principal.scopes) and ADMIN not in principal.scopes:
            scopes = ", ".join(sorted(self.scopes))
            message = f"the API key lacks a scope that the method takes: {scopes}"
            raise DomainError(Reason.SCOPE_MISSING, message, {"scopes": scopes})


def rule_of(method: str) -> Rule:
    """The rule of "/package.Service/Method", from its descriptor; closed when there is none."""
    service, _, name = method.lstrip("/").rpartition("/")
    if service in PUBLIC_SERVICES:
        return Rule(public=True)
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    except KeyError:
        return Rule()
    return _declared(descriptor)


def _declared(descriptor: MethodDescriptor) -> Rule:
    options = descriptor.GetOptions()
    if not options.HasExtension(access_pb2.access):
        return Rule()
    option = options.Extensions[access_pb2.access]
    return Rule(public=option.public, scopes=frozenset(option.scopes))


def admitting(authenticator: Authenticator, method: Method, inner: Step) -> Step:
    """`inner` for those whom the method's rule admits, with their principal set."""
    rule = rule_of(method.name)
    if rule.public:
        return inner
    if rule.is_closed:
        return _closed(method.name)
    authenticate = _by_key_or_ticket if method.is_watch else _by_key

    async def admit(call: Call) -> bytes | None:
        principal = await authenticate(authenticator, call)
        call.principal = principal
        rule.check(principal)
        set_principal(principal)
        if call.stream is None:
            return await inner(call)
        unwatch = authenticator.watch(principal, call.stream.end)
        try:
            return await inner(call)
        finally:
            unwatch()

    return admit


def _closed(name: str) -> Step:
    async def refuse(_: Call) -> bytes | None:
        message = "the method has no access rule, so nobody may call it"
        raise DomainError(Reason.METHOD_CLOSED, message, {"method": name})

    return refuse


def _by_key(authenticator: Authenticator, call: Call) -> Awaitable[Principal]:
    return authenticator.authenticate(_token(_authorization(call)))


def _by_key_or_ticket(authenticator: Authenticator, call: Call) -> Awaitable[Principal]:
    value = _authorization(call)
    if call.raw is not None and value[: len(_TICKET)].lower() == _TICKET:
        ticket = value[len(_TICKET) :].strip()
        return authenticator.authenticate_ticket(ticket, call.method.name, call.raw)
    return authenticator.authenticate(_token(value))


def _authorization(call: Call) -> str:
    for key, value in call.metadata:
        if key == _AUTHORIZATION and isinstance(value, str):
            return value
    raise DomainError(
        Reason.CREDENTIALS_MISSING, "metadata `authorization: Bearer <key>` is missing"
    )


def _token(value: str) -> str:
    if value[: len(_BEARER)].lower() != _BEARER:
        if value[: len(_TICKET)].lower() == _TICKET:
            raise DomainError(Reason.TICKET_INVALID, "a ticket opens streams only")
        message = "metadata `authorization` must be `Bearer <key>`"
        raise DomainError(Reason.CREDENTIALS_MISSING, message)
    token = value[len(_BEARER) :].strip()
    if not token or len(token) > _MAX_TOKEN_CHARACTERS:
        raise DomainError(Reason.CREDENTIALS_INVALID, "no such API key")
    return token
