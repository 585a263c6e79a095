"""A real server for tests: in this process, on a free port, on a real mongod, with its stubs."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
from bson import ObjectId
from google.rpc import error_details_pb2, status_pb2
from zaaz.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from zaaz.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from zaaz.credits.v1 import credits_service_pb2, usage_service_pb2
from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceStub
from zaaz.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceStub
from zaaz.ledger.v1 import credits_transaction_pb2, wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2
from zaaz.wallet.v1.statement_service_pb2_grpc import StatementServiceStub
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from server.app import running
from server.auth.service import AuthService
from server.config import Settings
from server.kernel.clock import Clock, system_clock
from server.mongo.client import connect
from server.mongo.database import Database
from server.rpc.logs import configure_logging

SECRET = "a secret of the tests, long enough"
MODEL = "openai/gpt-4o-mini"
BONUS = 2


class ManualClock:
    """Starts now and stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_ms = system_clock()

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, milliseconds: int) -> None:
        self.now_ms += milliseconds


class Served:
    """A server's address, and a client of it that holds an API key."""

    def __init__(self, target: str, api_key: str, channel: grpc.aio.Channel) -> None:
        self.target = target
        self.api_key = api_key
        self.channel = channel
        self.auth: Any = AuthServiceStub(channel)
        self.wallets: Any = WalletServiceStub(channel)
        self.credits: Any = CreditsServiceStub(channel)
        self.catalog: Any = CatalogServiceStub(channel)
        self.usage: Any = UsageServiceStub(channel)
        self.process: Any = CreditsProcessServiceStub(channel)
        self.statements: Any = StatementServiceStub(channel)

    async def new_wallet(self, credits_micros: int = 0, user_id: str = "") -> str:
        """The user of a new wallet, with so much in one bonus grant."""
        user_id = user_id or new_user()
        await self.wallets.CreateWallet(
            wallet_service_pb2.CreateWalletRequest(request_id=new_key(), user_id=user_id)
        )
        if credits_micros:
            await self.grant(user_id, credits_micros)
        return user_id

    async def grant(self, user_id: str, credits_micros: int, **fields: Any) -> Any:
        fields = {"request_id": new_key(), "source": BONUS, **fields}
        request = credits_service_pb2.GrantCreditsRequest(
            user_id=user_id, credits_micros=credits_micros, **fields
        )
        return await self.credits.GrantCredits(request)

    async def consume(self, user_id: str, credits_micros: int, request_id: str = "") -> Any:
        request = credits_service_pb2.ConsumeCreditsRequest(
            request_id=request_id or new_key(), user_id=user_id, credits_micros=credits_micros
        )
        return await self.credits.ConsumeCredits(request)

    async def wallet(self, user_id: str) -> wallet_pb2.Wallet:
        request = wallet_service_pb2.GetWalletRequest(user_id=user_id)
        answer: wallet_service_pb2.GetWalletResponse = await self.wallets.GetWallet(request)
        return answer.wallet

    async def record(self, *events: usage_service_pb2.UsageEvent) -> Any:
        request = usage_service_pb2.RecordUsageRequest(events=events)
        return (await self.usage.RecordUsage(request)).results

    async def transactions(self, user_id: str) -> list[credits_transaction_pb2.CreditsTransaction]:
        """All of a wallet's transactions, oldest first."""
        rows: list[credits_transaction_pb2.CreditsTransaction] = []
        token = ""
        while True:
            page = await self.credits.ListCreditsTransactions(
                credits_service_pb2.ListCreditsTransactionsRequest(
                    user_id=user_id, page_size=1_000, page_token=token
                )
            )
            rows += page.credits_transactions
            token = page.next_page_token
            if not token:
                return rows[::-1]

    async def assert_sound(self, user_id: str) -> None:
        """VerifyWallet finds nothing, and the books sum to zero."""
        request = wallet_service_pb2.VerifyWalletRequest(user_id=user_id)
        assert not (await self.wallets.VerifyWallet(request)).differences


def new_key() -> str:
    return uuid4().hex


def new_user() -> str:
    return str(ObjectId())


def usage_event(user_id: str, **fields: Any) -> usage_service_pb2.UsageEvent:
    """An event of now with a key of its own: 1,000 tokens in, 500 out (540,000 micro-credits)."""
    now_ms = fields.pop("occurred_ms", None) or time.time_ns() // 1_000_000
    values = {
        "usage_key": new_key(),
        "ai_model": MODEL,
        "input_tokens": 1_000,
        "output_tokens": 500,
        **fields,
    }
    event = usage_service_pb2.UsageEvent(user_id=user_id, **values)
    event.occurred_time.FromMilliseconds(now_ms)
    return event


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo reason of a failed call; "" when it bears none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return str(error_info(status_pb2.Status.FromString(value)).reason)
    return ""


def error_info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    return info


@asynccontextmanager
async def connected(target: str, api_key: str) -> AsyncIterator[Served]:
    """A client of a server that runs already."""
    async with grpc.aio.insecure_channel(target, interceptors=_bearer(api_key)) as channel:
        yield Served(target, api_key, channel)


@asynccontextmanager
async def serving(
    mongo_url: str, database: str, clock: Clock = system_clock
) -> AsyncIterator[Served]:
    """A server of its own on `database`, with an admin key of client `tests`."""
    settings = Settings(
        grpc_address="127.0.0.1:0",
        metrics_address="",
        mongo_url=mongo_url,
        mongo_database=database,
        secret=SECRET,
    )
    async with running(settings, configure_logging("ERROR"), clock) as server:
        key = await make_key(mongo_url, database, "tests", ["admin"])
        async with connected(str(server.address), key) as served:
            yield served


async def make_key(mongo_url: str, database: str, client_id: str, scopes: list[str]) -> str:
    """An API key, made as an operator does."""
    client = await connect(mongo_url)
    auth = AuthService(Database(client, database), SECRET)
    created = await auth.create_first_key(client_id, tuple(scopes))
    await client.close()
    return created.key


def _bearer(api_key: str) -> list[grpc.aio.ClientInterceptor]:
    metadata = ("authorization", f"Bearer {api_key}")
    return [_Unary(metadata), _Stream(metadata)]


class _Credentials:
    def __init__(self, metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def add(self, details: Any) -> Any:
        given = list(details.metadata or ())
        if not any(key == "authorization" for key, _ in given):
            given.append(self._metadata)
        return details._replace(metadata=grpc.aio.Metadata(*given))


class _Unary(_Credentials, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self.add(details), request)


class _Stream(_Credentials, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(self.add(details), requests)
