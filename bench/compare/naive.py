"""One MongoDB transaction a debit: `python -m bench.compare.naive URL DATABASE`.

The service that a team writes on its first afternoon: ConsumeCredits of the
same contract, so that the same client calls it. The wallet is found, its
balance checked, `$inc` takes the credits, a row says so, and the driver's
with_transaction repeats what conflicted. No key is asked for, nothing but the
amount is looked at, nothing is told to anyone, and no hash is chained.
"""

import asyncio
import signal
import sys
import time
from typing import Any

import grpc
import orjson
from pymongo import AsyncMongoClient, IndexModel, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern
from zaaz.credits.v1 import credits_service_pb2 as pb

WALLETS, DEBITS = "wallets", "debits"
RETRIES_METHOD = "/bench.Naive/CountRetries"
"""Answers with the decimal count of transactions that were repeated, since it was last asked."""

Document = dict[str, Any]


class Naive:
    """The one RPC, and what it repeated."""

    def __init__(self, client: AsyncMongoClient[Document], database: str) -> None:
        self._client = client
        self._wallets = client[database][WALLETS]
        self._debits = client[database][DEBITS]
        self._repeated = 0

    async def begin(self) -> None:
        """Makes the indexes, and so the collections: a transaction had better not."""
        await self._wallets.create_indexes([IndexModel("user_id", unique=True)])
        await self._debits.create_indexes(
            [IndexModel("request_id", unique=True), IndexModel([("user_id", 1), ("_id", -1)])]
        )

    async def consume(
        self, request: pb.ConsumeCreditsRequest, context: Any
    ) -> pb.ConsumeCreditsResponse:
        tries = 0

        async def debit(session: AsyncClientSession) -> bool:
            nonlocal tries
            tries += 1
            return await self._debit(session, request)

        async with self._client.start_session() as session:
            enough = await session.with_transaction(
                debit,
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority", j=True),
                read_preference=ReadPreference.PRIMARY,
            )
        self._repeated += tries - 1
        if not enough:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not enough credits")
        return pb.ConsumeCreditsResponse()

    async def _debit(self, session: AsyncClientSession, request: pb.ConsumeCreditsRequest) -> bool:
        amount = request.credits_micros
        wallet = await self._wallets.find_one({"user_id": request.user_id}, session=session)
        if wallet is None or wallet["credits_micros"] < amount:
            return False
        await self._wallets.update_one(
            {"_id": wallet["_id"]}, {"$inc": {"credits_micros": -amount}}, session=session
        )
        row = {
            "request_id": request.request_id,
            "user_id": request.user_id,
            "credits_micros": -amount,
            "balance_after_micros": wallet["credits_micros"] - amount,
            "created_ms": time.time_ns() // 1_000_000,
        }
        await self._debits.insert_one(row, session=session)
        return True

    async def count_retries(self, _request: bytes, _context: Any) -> bytes:
        repeated, self._repeated = self._repeated, 0
        return str(repeated).encode()


async def main(url: str, database: str) -> None:
    """Serves until SIGTERM; says where in one JSON line."""
    async with AsyncMongoClient[Document](url) as client:
        naive = Naive(client, database)
        await naive.begin()
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        _add(server, naive)
        await server.start()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        sys.stdout.write(orjson.dumps({"grpc": f"127.0.0.1:{port}"}).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()
        await server.stop(None)


def _add(server: Any, naive: Naive) -> None:
    consume: Any = grpc.unary_unary_rpc_method_handler(
        naive.consume,
        request_deserializer=pb.ConsumeCreditsRequest.FromString,
        response_serializer=pb.ConsumeCreditsResponse.SerializeToString,
    )
    count: Any = grpc.unary_unary_rpc_method_handler(naive.count_retries)
    contract = pb.DESCRIPTOR.services_by_name["CreditsService"].full_name
    service, name = RETRIES_METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(contract, {"ConsumeCredits": consume}),
            grpc.method_handlers_generic_handler(service, {name: count}),
        )
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
