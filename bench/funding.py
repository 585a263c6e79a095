"""Funded wallets by the ten thousand, by the server's own ledger within this process.

As a second server on the same database would make them, with the same chains
and entries, but for the RPCs: two calls a wallet hold the server for half a
minute or more, and more callers do not shorten that. Nothing is announced.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from bson import ObjectId
from prometheus_client import CollectorRegistry
from zaaz.ledger.v1.grant_pb2 import INCREASE_SOURCE_PAYMENT

from bench.processes import SERVER_DATABASE
from server.app import LOCAL_CLIENT
from server.kernel.clock import system_clock
from server.kernel.tasks import Background
from server.ledger.committer import Committer
from server.ledger.metrics import LedgerMetrics
from server.ledger.service import Caller, Ledger
from server.ledger.store import LedgerStore, OutboxDocument
from server.mongo.client import connect
from server.mongo.database import Database

CALLERS = 4_096
"""As many as go into a transaction."""


class _Nobody:
    """Listens to no wallet's changes."""

    def document(self, topic: str, payload: dict[str, Any]) -> OutboxDocument | None:
        return None

    def committed(self, rows: Sequence[OutboxDocument]) -> None:
        pass


async def fund_wallets(
    mongo_url: str, count: int, funds_micros: int, database: str = SERVER_DATABASE
) -> list[str]:
    """The users of so many new wallets. The server has not seen them yet."""
    users = [str(ObjectId()) for _ in range(count)]
    waiting = iter(users)
    async with _ledger(mongo_url, database) as ledger, asyncio.TaskGroup() as callers:
        for _ in range(min(CALLERS, count)):
            callers.create_task(_make(ledger, waiting, funds_micros))
    return users


async def _make(ledger: Ledger, waiting: Iterator[str], funds_micros: int) -> None:
    for user_id in waiting:
        await ledger.open_wallet(Caller(LOCAL_CLIENT, uuid4().hex), user_id, "")
        grant = Caller(LOCAL_CLIENT, uuid4().hex)
        await ledger.add_grant(grant, user_id, funds_micros, INCREASE_SOURCE_PAYMENT)


@asynccontextmanager
async def _ledger(mongo_url: str, database: str) -> AsyncIterator[Ledger]:
    client, background = await connect(mongo_url), Background()
    try:
        store = LedgerStore(Database(client, database), _Nobody())
        committer = Committer(store, system_clock, LedgerMetrics(CollectorRegistry()))
        background.start("ledger", committer.run())
        yield Ledger(committer, store, system_clock)
    finally:
        await background.stop()
        await client.close()
