"""`?ticket=`: credentials in the query, for EventSource, which can send no header.

A ticket is taken out of the request before anything else can see or log it, and
goes on to the server as `authorization: Ticket <...>`.
"""

import re
from collections.abc import Sequence
from typing import Final

from google.protobuf.descriptor import Descriptor

from gateway.exchange import Exchange
from gateway.refusals import Refusal, field_invalid

PARAMETER: Final = "ticket"

_PREFIX: Final = PARAMETER.encode() + b"="
_TICKET: Final = re.compile(rb"[A-Za-z0-9._~-]{1,512}")


def refuse_clash(request: Descriptor) -> None:
    """ValueError if a field of the request would have to stand in the ticket's place."""
    if PARAMETER in request.fields_by_name:
        raise ValueError(f"{request.full_name} has a field {PARAMETER}")


def metadata_of(exchange: Exchange) -> Sequence[tuple[str, str]]:
    """`Exchange.metadata` with a ticket in a key's place; the query loses it.

    A Refusal if there are two. A key wins over a ticket.
    """
    ticket = _take(exchange)
    metadata = exchange.metadata()
    if not ticket or b"authorization" in exchange.head:
        return metadata
    return (("authorization", f"Ticket {ticket}"), *metadata)


def _take(exchange: Exchange) -> str:
    query: bytes = exchange.scope["query_string"]
    if _PREFIX not in query:
        return ""
    parts = query.split(b"&")
    tickets = [part[len(_PREFIX) :] for part in parts if part.startswith(_PREFIX)]
    others = [part for part in parts if not part.startswith(_PREFIX)]
    exchange.scope["query_string"] = b"&".join(others)
    if len(tickets) > 1:
        raise field_invalid(PARAMETER, "stands twice in the query")
    if not tickets:
        return ""
    if not _TICKET.fullmatch(tickets[0]):
        raise Refusal(401, "TICKET_INVALID", "the ticket is none that CreateStreamTicket makes")
    return tickets[0].decode()
