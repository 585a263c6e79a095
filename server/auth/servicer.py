"""zaaz.auth.v1.AuthService: between the contract's messages and the use cases."""

from bson import ObjectId
from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import ServicerContext
from zaaz.auth.v1 import auth_service_pb2 as pb
from zaaz.auth.v1.auth_service_pb2_grpc import AuthServiceServicer

from server.auth.model import ApiKey, NewApiKey
from server.auth.service import AuthService
from server.auth.store import KeyFilter
from server.auth.tickets import request_of, stream_of
from server.kernel.errors import field_invalid
from server.kernel.ids import parse_id
from server.kernel.paging import PageTokens, page_size
from server.kernel.principal import current_principal
from server.kernel.timestamps import storable_time, timestamp
from server.rpc.access import rule_of
from server.rpc.validation import check

MAX_PAGE_SIZE = 500


class AuthServicer(AuthServiceServicer):
    """Who may call, says the contract; the edge enforces it before a method is reached."""

    def __init__(self, service: AuthService, page_tokens: PageTokens) -> None:
        self._service = service
        self._page_tokens = page_tokens

    async def CreateApiKey(
        self,
        request: pb.CreateApiKeyRequest,
        context: ServicerContext[pb.CreateApiKeyRequest, pb.CreateApiKeyResponse],
    ) -> pb.CreateApiKeyResponse:
        """Make a key, or return what the same request made."""
        wanted = NewApiKey(
            request_id=request.request_id,
            client_id=request.client_id,
            name=request.name,
            scopes=tuple(request.scopes),
            expires_time=_expires_time(request),
        )
        created = await self._service.create_key(current_principal().client_id, wanted)
        return pb.CreateApiKeyResponse(api_key=_message(created.api_key), key=created.key)

    async def ListApiKeys(
        self,
        request: pb.ListApiKeysRequest,
        context: ServicerContext[pb.ListApiKeysRequest, pb.ListApiKeysResponse],
    ) -> pb.ListApiKeysResponse:
        """One page of keys, newest first."""
        query = f"ListApiKeys\0{request.client_id}\0{request.show_revoked}"
        cursor = self._page_tokens.read(query, request.page_token)
        before = ObjectId(str(cursor[0])) if cursor else None
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        which = KeyFilter(request.client_id, request.show_revoked)
        # One more than the page says whether there is a next one.
        keys = await self._service.list_keys(which, before, size + 1)
        page = keys[:size]
        more = len(keys) > size
        return pb.ListApiKeysResponse(
            api_keys=[_message(key) for key in page],
            next_page_token=self._page_tokens.make(query, [str(page[-1].id)]) if more else "",
        )

    async def RevokeApiKey(
        self,
        request: pb.RevokeApiKeyRequest,
        context: ServicerContext[pb.RevokeApiKeyRequest, pb.RevokeApiKeyResponse],
    ) -> pb.RevokeApiKeyResponse:
        """End a key."""
        key = await self._service.revoke_key(parse_id("id", request.id))
        return pb.RevokeApiKeyResponse(api_key=_message(key))

    async def CreateStreamTicket(
        self,
        request: pb.CreateStreamTicketRequest,
        context: ServicerContext[pb.CreateStreamTicketRequest, pb.CreateStreamTicketResponse],
    ) -> pb.CreateStreamTicketResponse:
        """A ticket for a stream that the caller may open itself."""
        principal = current_principal()
        stream = stream_of(request.method)
        rule = rule_of(request.method)
        if stream is None or rule.is_closed or rule.public:
            raise field_invalid("method", "must be a stream that a ticket can open")
        rule.check(principal)
        wanted = request_of(stream, request.request)
        check(wanted, "request.")
        ticket = self._service.tickets.make(
            principal.api_key_id, stream, wanted, request.ttl_seconds
        )
        return pb.CreateStreamTicketResponse(
            ticket=ticket.text, expires_time=timestamp(ticket.expires_time)
        )


def _message(key: ApiKey) -> pb.ApiKey:
    return pb.ApiKey(
        id=str(key.id),
        client_id=key.client_id,
        name=key.name,
        scopes=key.scopes,
        expires_time=_timestamp(key.expires_time),
        revoked_time=_timestamp(key.revoked_time),
        created_time=_timestamp(key.created_time),
    )


def _timestamp(time_ms: int | None) -> Timestamp | None:
    return None if time_ms is None else timestamp(time_ms)


def _expires_time(request: pb.CreateApiKeyRequest) -> int | None:
    if not request.HasField("expires_time"):
        return None
    return storable_time("expires_time", request.expires_time)
