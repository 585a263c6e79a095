"""Wallets that many ask for at once are read by one query, and never older than the asking."""

import asyncio
from collections.abc import Iterable

import pytest
from bson import ObjectId

from server.ledger.cache import StateCache
from server.ledger.documents import wallet_document
from server.ledger.model import Profile, Wallet, new_wallet
from server.ledger.store import COLLECTIONS, WALLETS, LedgerStore
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable
from tests.ledger.calls import soon
from tests.ledger.stores import Nobody

CALLERS = 64


class CountingStore(LedgerStore):
    """A store that counts its queries, holds them up while it is told to, or fails."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, Nobody())
        self.asked: list[set[str]] = []
        self.answered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failure: Exception | None = None

    async def wallets(self, user_ids: Iterable[str]) -> dict[str, Wallet]:
        self.asked.append(set(user_ids))
        if self.failure is not None:
            raise self.failure
        found = await super().wallets(self.asked[-1])
        self.answered.set()
        await self.go_on.wait()
        return found


@pytest.fixture
async def store(database: Database) -> CountingStore:
    await database.prepare(COLLECTIONS)
    return CountingStore(database)


@pytest.fixture
async def users(database: Database, store: CountingStore) -> list[str]:
    wallets = [new_wallet(Profile(ObjectId(), ObjectId(), "", 0)) for _ in range(CALLERS)]
    await database.collection(WALLETS).insert_many([wallet_document(each) for each in wallets])
    return [str(wallet.profile.user_id) for wallet in wallets]


async def test_who_asks_at_once_shares_a_query(store: CountingStore, users: list[str]) -> None:
    cache = StateCache(store)
    nobody = str(ObjectId())

    found = await soon(asyncio.gather(*(cache.peek(u, fresh=True) for u in [*users, nobody])))

    assert store.asked == [{*users, nobody}]
    assert [wallet and str(wallet.profile.user_id) for wallet in found] == [*users, None]


async def test_who_asks_while_a_query_is_answered_gets_what_was_written_since(
    database: Database, store: CountingStore, users: list[str]
) -> None:
    cache, user = StateCache(store), users[0]
    store.go_on.clear()
    early = asyncio.create_task(cache.peek(user, fresh=True))
    await soon(store.answered.wait())
    await database.collection(WALLETS).update_one({}, {"$inc": {"credits_micros": 7, "version": 1}})
    late = asyncio.create_task(cache.peek(user, fresh=True))
    store.go_on.set()

    before, after = await soon(asyncio.gather(early, late))

    assert before is not None
    assert after is not None
    assert (before.credits_micros, after.credits_micros) == (0, 7)
    assert store.asked == [{user}, {user}]


async def test_a_query_that_fails_fails_all_who_share_it_and_nobody_after(
    store: CountingStore, users: list[str]
) -> None:
    cache = StateCache(store)
    store.failure = DatabaseUnavailable("away")
    asking = (cache.peek(user, fresh=True) for user in users)
    failures = await soon(asyncio.gather(*asking, return_exceptions=True))
    store.failure = None

    wallet = await soon(cache.peek(users[0], fresh=True))

    assert {type(failure) for failure in failures} == {DatabaseUnavailable}
    assert wallet is not None


async def test_a_caller_that_goes_away_leaves_the_others_their_answer(
    store: CountingStore, users: list[str]
) -> None:
    cache, user = StateCache(store), users[0]
    store.go_on.clear()
    gone = asyncio.create_task(cache.peek(user, fresh=True))
    stays = asyncio.create_task(cache.peek(user, fresh=True))
    await soon(store.answered.wait())
    gone.cancel()
    store.go_on.set()

    assert await soon(stays) is not None
    assert store.asked == [{user}]
