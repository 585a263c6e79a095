"""The stream's baseline: bare `insert_many` of the documents that its events became."""

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bson import ObjectId
from pymongo import AsyncMongoClient, IndexModel, WriteConcern

from bench.pairs import Run, Sides
from bench.processes import SERVER_DATABASE, BenchError
from bench.setting import Bench, Open
from bench.usage import USAGE_EVENTS, Document, Stream
from server.ledger.store import COLLECTIONS, ENTRIES

INSERT_BATCH = 4_096
READ_BATCH = 4_096
BASELINE_DATABASE = "bench_baseline"


class BareInserts:
    """The baseline: `insert_many` of the very documents that an earlier run of the stream wrote.

    Into a collection of the same indexes and as many rows as the server's has, in
    a database of its own on the same mongod; no transaction, unordered, one batch
    after the other; majority and journaled, as the ledger writes. The stream is a
    run ahead, so that either side can be the first of a pair.
    """

    def __init__(self, client: AsyncMongoClient[Document], stream: Stream) -> None:
        self._entries = client[SERVER_DATABASE][ENTRIES]
        concern = WriteConcern(w="majority", j=True)
        self._copies = client[BASELINE_DATABASE].get_collection(ENTRIES, write_concern=concern)
        self._stream = stream

    async def begin(self) -> None:
        """Makes the collection, its indexes, and copies what the server's holds already.

        Of the run that is still to be inserted it copies stand-ins, with ids and
        numbers of their own: both collections are to have as many rows.
        """
        declared = next(collection for collection in COLLECTIONS if collection.name == ENTRIES)
        definitions = [index.definition() for index in declared.indexes]
        models = [IndexModel(list(d.pop("key").items()), **d) for d in definitions]
        await self._copies.create_indexes(models)
        ahead = {each for sent in self._stream.sent for each in sent}
        batch: list[Document] = []
        async for document in self._entries.find():
            batch.append(stand_in(document) if document["_id"] in ahead else document)
            if len(batch) == INSERT_BATCH:
                await self._copies.insert_many(batch, ordered=False)
                batch = []
        if batch:
            await self._copies.insert_many(batch, ordered=False)

    async def prepare(self, operations: int) -> Run:
        """Reads the oldest run's documents back, in the order of their events."""
        sent = self._stream.sent.popleft() if self._stream.sent else []
        if len(sent) != operations:
            raise BenchError("the baseline must insert what the stream wrote")
        documents: list[Document] = []
        for start in range(0, operations, READ_BATCH):
            ids = sent[start : start + READ_BATCH]
            found = {row["_id"]: row async for row in self._entries.find({"_id": {"$in": ids}})}
            documents += [found[each] for each in ids]
        return lambda: self._insert(documents)

    async def _insert(self, documents: Sequence[Document]) -> list[float]:
        latencies = []
        for start in range(0, len(documents), INSERT_BATCH):
            began = time.perf_counter()
            await self._copies.insert_many(documents[start : start + INSERT_BATCH], ordered=False)
            latencies.append(time.perf_counter() - began)
        return latencies


def stand_in(document: Document) -> Document:
    """The same row, but where the indexes of a ledger's entries are unique."""
    return {**document, "_id": ObjectId(os.urandom(12)), "sequence": -document["sequence"]}


def usage(wallets: int) -> Open:
    """The stream over bare inserts, on so many wallets."""

    @asynccontextmanager
    async def sides(bench: Bench) -> AsyncIterator[Sides]:
        stream = Stream(bench.channel, bench.served, await bench.wallets(wallets))
        async with AsyncMongoClient[Document](bench.served.mongo_url) as client:
            events = bench.plan.operations(USAGE_EVENTS)
            await stream.visit()
            await (await stream.prepare(events))()
            inserts = BareInserts(client, stream)
            await inserts.begin()
            yield Sides(stream, inserts, (events, events))

    return sides
