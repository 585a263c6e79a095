"""Stream tickets through the contract: what opens which stream, and for how long."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
import zaaz
from google.protobuf.struct_pb2 import Struct
from zaaz.auth.v1 import auth_service_pb2 as pb
from zaaz.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from zaaz.common.v1 import access_pb2
from zaaz.wallet.v1 import wallet_service_pb2
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from server.auth.service import AuthService
from server.auth.servicer import AuthServicer
from server.auth.tickets import DEFAULT_TTL_SECONDS
from server.kernel.errors import DomainError, Reason
from server.kernel.paging import PageTokens
from server.kernel.principal import Principal, set_principal
from tests.serving import ManualClock, Served, new_key, new_user, reason_of

WATCH = "zaaz.wallet.v1.WalletService/WatchWallet"
PATIENCE_SECONDS = 20


@contextmanager
def refused(*reasons: str) -> Iterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert reason_of(caught.value) in reasons


async def ticket_for(served: Served, user_id: str, key: str = "", **fields: Any) -> Any:
    """What CreateStreamTicket says for a watch of this wallet."""
    request = Struct()
    request.update({"user_id": user_id, **fields.pop("request", {})})
    wanted = pb.CreateStreamTicketRequest(**{"method": WATCH, "request": request, **fields})
    return await served.auth.CreateStreamTicket(
        wanted, metadata=(("authorization", f"Bearer {key or served.api_key}"),)
    )


async def key_with(served: Served, *scopes: str) -> Any:
    request = pb.CreateApiKeyRequest(request_id=new_key(), client_id="partner", scopes=scopes)
    return await served.auth.CreateApiKey(request)


@asynccontextmanager
async def stubs_of(served: Served) -> AsyncIterator[Any]:
    """Stubs of a channel that has no key: AuthService's, WalletService's."""
    async with grpc.aio.insecure_channel(served.target) as channel:
        yield AuthServiceStub(channel), WalletServiceStub(channel)


@pytest.fixture
async def stubs(served: Served) -> AsyncIterator[Any]:
    async with stubs_of(served) as made:
        yield made


@pytest.fixture
async def clocked_stubs(clocked: Served) -> AsyncIterator[Any]:
    async with stubs_of(clocked) as made:
        yield made


def by_ticket(ticket: str) -> Sequence[tuple[str, str]]:
    return (("authorization", f"Ticket {ticket}"),)


def watch(stubs: Any, ticket: str, user_id: str, resume_token: str = "") -> Any:
    request = wallet_service_pb2.WatchWalletRequest(user_id=user_id, resume_token=resume_token)
    return stubs[1].WatchWallet(request, metadata=by_ticket(ticket))


async def test_it_opens_its_stream_again_and_again(served: Served, stubs: Any) -> None:
    user_id = await served.new_wallet(5)
    made = await ticket_for(served, user_id, request={"resume_token": "of no account"})

    first = await watch(stubs, made.ticket, user_id).read()
    again = await watch(stubs, made.ticket, user_id, first.resume_token).read()

    assert first.snapshot.credits_micros == 5
    assert again.WhichOneof("event") == "bookmark"


async def test_it_opens_no_other_stream(served: Served, stubs: Any) -> None:
    user_id, other = await served.new_wallet(), await served.new_wallet()
    ticket = (await ticket_for(served, user_id)).ticket

    with refused("TICKET_INVALID"):
        await watch(stubs, ticket, other).read()


async def test_it_calls_nothing_else(served: Served, stubs: Any) -> None:
    user_id = await served.new_wallet()
    ticket = (await ticket_for(served, user_id)).ticket
    request = wallet_service_pb2.GetWalletRequest(user_id=user_id)

    with refused("TICKET_INVALID"):
        await stubs[1].GetWallet(request, metadata=by_ticket(ticket))
    with refused("TICKET_INVALID"):
        again = pb.CreateStreamTicketRequest(method=WATCH)
        await stubs[0].CreateStreamTicket(again, metadata=by_ticket(ticket))
    with refused("CREDENTIALS_INVALID"):
        call = stubs[1].GetWallet(request, metadata=(("authorization", f"Bearer {ticket}"),))
        await call


@pytest.mark.parametrize(
    ("place", "text"),
    [(0, "x"), (6, "0123456789abcdef01234567"), (31, "9"), (-1, "="), (-2, "aa"), (3, "é")],
)
async def test_a_changed_one_opens_nothing(
    served: Served, stubs: Any, place: int, text: str
) -> None:
    user_id = await served.new_wallet()
    ticket: str = (await ticket_for(served, user_id)).ticket
    place %= len(ticket)
    changed = ticket[:place] + text + ticket[place + len(text) :]
    assert changed != ticket

    if not changed.isascii():
        changed = changed.encode("ascii", "ignore").decode()
    with refused("TICKET_INVALID"):
        await watch(stubs, changed, user_id).read()


async def test_it_expires(clocked: Served, clocked_stubs: Any, manual_clock: ManualClock) -> None:
    user_id = await clocked.new_wallet()
    usual = await ticket_for(clocked, user_id)
    short = await ticket_for(clocked, user_id, ttl_seconds=5)
    assert usual.expires_time.ToMilliseconds() == manual_clock() + DEFAULT_TTL_SECONDS * 1000
    stream = watch(clocked_stubs, short.ticket, user_id)
    await stream.read()

    manual_clock.advance(5_000)

    with refused("TICKET_INVALID"):
        await watch(clocked_stubs, short.ticket, user_id).read()
    assert await watch(clocked_stubs, usual.ticket, user_id).read()
    await clocked.grant(user_id, 7)
    assert (await stream.read()).change.credits_micros == 7, "what is open goes on"


async def test_its_key_ends_it(served: Served, stubs: Any) -> None:
    user_id = await served.new_wallet()
    key = await key_with(served, "wallet.read")
    ticket = (await ticket_for(served, user_id, key.key)).ticket
    stream = watch(stubs, ticket, user_id)
    await stream.read()

    await served.auth.RevokeApiKey(pb.RevokeApiKeyRequest(id=key.api_key.id))

    async with asyncio.timeout(PATIENCE_SECONDS):
        with refused("API_KEY_REVOKED"):
            await stream.read()
        with refused("API_KEY_REVOKED"):
            await watch(stubs, ticket, user_id).read()


async def test_its_key_expires(
    clocked: Served, clocked_stubs: Any, manual_clock: ManualClock
) -> None:
    user_id = await clocked.new_wallet()
    wanted = pb.CreateApiKeyRequest(
        request_id=new_key(), client_id="partner", scopes=["wallet.read"]
    )
    wanted.expires_time.FromMilliseconds(manual_clock() + 60_000)
    key = await clocked.auth.CreateApiKey(wanted)
    ticket = (await ticket_for(clocked, user_id, key.key)).ticket

    manual_clock.advance(60_000)

    with refused("API_KEY_EXPIRED"):
        await watch(clocked_stubs, ticket, user_id).read()


async def test_another_server_reads_it_of_a_key_that_it_does_not_know(
    clocked: Served, clocked_stubs: Any, manual_clock: ManualClock
) -> None:
    user_id = await clocked.new_wallet()
    key = await key_with(clocked, "wallet.read")
    ticket = (await ticket_for(clocked, user_id, key.key, ttl_seconds=3_600)).ticket

    # What the server knows of the key has grown too old to count.
    manual_clock.advance(31_000)

    assert await watch(clocked_stubs, ticket, user_id).read()


async def test_who_may_not_open_the_stream_gets_none(served: Served) -> None:
    user_id = await served.new_wallet()
    key = await key_with(served, "usage.write")

    with refused("SCOPE_MISSING"):
        await ticket_for(served, user_id, key.key)


async def test_another_streams_scope_does_not_do(service: AuthService) -> None:
    """The edge lets in whoever may open some stream; the method asks for this one's scope."""
    servicer = AuthServicer(service, PageTokens("a server secret"))
    request = pb.CreateStreamTicketRequest(method=WATCH)
    request.request.update({"user_id": new_user()})

    async def ask(scope: str) -> Any:
        set_principal(Principal("partner", new_user(), frozenset({scope})))
        context: Any = None
        return await servicer.CreateStreamTicket(request, context)

    # Tasks of their own: a principal is an RPC's.
    with pytest.raises(DomainError) as caught:
        await asyncio.create_task(ask("usage.read"))
    assert caught.value.reason is Reason.SCOPE_MISSING
    assert (await asyncio.create_task(ask("wallet.read"))).ticket


@pytest.mark.parametrize(
    "method",
    [
        "nonsense",
        "zaaz.wallet.v1.WalletService/GetWallet",
        "zaaz.credits.v1.UsageService/IngestUsage",
        "grpc.health.v1.Health/Watch",
    ],
)
async def test_there_are_none_for_what_is_no_stream_of_the_contract(
    served: Served, method: str
) -> None:
    with refused("FIELD_INVALID"):
        await ticket_for(served, new_user(), method=method)


@pytest.mark.parametrize(
    "request_fields", [{"user_id": "nobody"}, {"nonsense": 1}, {"user_id": {"a": 1}}]
)
async def test_a_request_that_would_be_refused_gets_none(
    served: Served, request_fields: dict[str, Any]
) -> None:
    with refused("FIELD_INVALID", "MALFORMED_ID"):
        await ticket_for(served, new_user(), request=request_fields)


async def test_none_lasts_for_longer_than_an_hour(served: Served) -> None:
    with refused("FIELD_INVALID"):
        await ticket_for(served, new_user(), ttl_seconds=3_601)


def test_whoever_may_open_some_stream_may_ask_for_tickets() -> None:
    paths = (path for root in zaaz.__path__ for path in Path(root).glob("*/v1/*_service_pb2.py"))
    services = [
        service
        for path in paths
        for service in import_module(
            f"zaaz.{path.parts[-3]}.v1.{path.stem}"
        ).DESCRIPTOR.services_by_name.values()
    ]
    methods = [method for service in services for method in service.methods]
    streams = [each for each in methods if each.server_streaming and not each.client_streaming]
    scopes = {method.name: set(access_of(method)) for method in methods}

    assert streams
    for stream in streams:
        assert scopes[stream.name] <= scopes["CreateStreamTicket"]


def access_of(method: Any) -> Any:
    return method.GetOptions().Extensions[access_pb2.access].scopes
