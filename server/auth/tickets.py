"""Stream tickets: what a browser has in place of a key, which EventSource cannot send.

    zaazt_<key id>_<expiry in milliseconds>_<signature>

The signature is over all of it, the method and the stream's request: a ticket opens
that stream and no other. Nothing is stored. Whoever reads one learns whose key made
it and until when it counts, no more.
"""

import hmac
import re
from base64 import b32encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from server.kernel.clock import Clock
from server.kernel.errors import DomainError, Reason, field_invalid

DEFAULT_TTL_SECONDS: Final = 600
"""How long a ticket counts for which no time was named; the contract has the longest."""

RESUME_TOKEN: Final = "resume_token"
"""The field of a stream's request that every reconnection changes."""

_TICKET = re.compile(r"zaazt_([0-9a-f]{24})_([0-9]{1,15})_([a-z2-7]{52})")
_PURPOSE = b"stream-ticket"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket's text, and when it ends: milliseconds."""

    text: str
    expires_time: int


class StreamTickets:
    """Makes and reads tickets. `secret` is the server's: any server of it reads them."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self._key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
        self._clock = clock

    def make(
        self, key_id: str, stream: MethodDescriptor, request: Message, ttl_seconds: int
    ) -> Ticket:
        """The ticket of the key `key_id` for this stream with this request."""
        expires_time = self._clock() + (ttl_seconds or DEFAULT_TTL_SECONDS) * 1000
        name = f"/{stream.containing_service.full_name}/{stream.name}"
        signature = self._sign(key_id, expires_time, name, request)
        return Ticket(f"zaazt_{key_id}_{expires_time}_{signature}", expires_time)

    def read(self, text: str, method: str, raw: bytes) -> str:
        """The id of the key that made the ticket for "/package.Service/Method" and these bytes.

        TICKET_INVALID for one of another stream or request, expired or damaged.
        """
        match = _TICKET.fullmatch(text)
        stream = stream_of(method)
        request = _parsed(stream, raw) if stream is not None else None
        if match is None or request is None:
            raise ticket_invalid()
        key_id, expires_time = match[1], int(match[2])
        if not hmac.compare_digest(self._sign(key_id, expires_time, method, request), match[3]):
            raise ticket_invalid()
        if expires_time <= self._clock():
            raise DomainError(Reason.TICKET_INVALID, "the ticket has expired: ask for another")
        return key_id

    def _sign(self, key_id: str, expires_time: int, method: str, request: Message) -> str:
        if RESUME_TOKEN in request.DESCRIPTOR.fields_by_name:
            request.ClearField(RESUME_TOKEN)
        digest = sha256(request.SerializeToString(deterministic=True)).hexdigest()
        signed = f"{key_id}\0{expires_time}\0{method}\0{digest}".encode()
        return b32encode(hmac.digest(self._key, signed, "sha256")).decode().rstrip("=").lower()


def stream_of(method: str) -> MethodDescriptor | None:
    """The method, "/package.Service/Method" or without the first stroke, if a ticket can open it.

    That takes one request, and a stream of responses.
    """
    try:
        found = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    except KeyError:
        return None
    return found if found.server_streaming and not found.client_streaming else None


def request_of(stream: MethodDescriptor, fields: Message) -> Message:
    """The stream's request of a Struct. FIELD_INVALID if it is none."""
    request: Message = GetMessageClass(stream.input_type)()
    try:
        json_format.ParseDict(json_format.MessageToDict(fields), request)
    except (json_format.ParseError, ValueError) as error:
        raise field_invalid("request", f"is no {stream.input_type.name}: {error}") from None
    return request


def ticket_invalid() -> DomainError:
    """One answer for a damaged ticket and for one of another stream."""
    return DomainError(
        Reason.TICKET_INVALID, "a ticket opens the stream that it was made for, and no other"
    )


def _parsed(stream: MethodDescriptor, raw: bytes) -> Message | None:
    try:
        request: Message = GetMessageClass(stream.input_type).FromString(raw)
    except DecodeError:
        return None
    return request
