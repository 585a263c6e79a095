"""How an IngestUsage stream ends that its client has not ended."""

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

from tests.conftest import MongoClient
from tests.ledger.calls import PRICE, Ingest, at, refused, soon
from tests.serving import ManualClock, Served, new_key, serving, usage_event
from tests.usage.partners import partner

FUNDS = 100_000 * PRICE
FRAMES, SIZE = 60, 200


async def test_a_drained_stream_answers_what_it_has_read_and_says_where_it_stands(
    mongo_url: str, mongo_client: MongoClient
) -> None:
    name = f"test_{uuid4().hex[:16]}"
    async with serving(mongo_url, name) as server:
        user_id = await server.new_wallet(FUNDS)
    writer_id, sent = new_key(), [usage_event(user_id) for _ in range(FRAMES * SIZE)]
    async with AsyncExitStack() as life:
        server = await life.enter_async_context(serving(mongo_url, name))
        stream, _ = await Ingest.opened(server, writer_id)
        for offset in range(0, len(sent), SIZE):
            stream.frame(offset, *sent[offset : offset + SIZE])
        assert (await stream.answer("ack")).through_offset == SIZE
        # Its end is waited for while the stream is read: the server waits for the stream.
        stopping = asyncio.create_task(life.aclose())
        *acks, last = await stream.rest()
        await soon(stopping)
    through = [answer.ack.through_offset for answer in acks]
    assert through == [SIZE * place for place in range(2, len(through) + 2)]
    assert all(answer.ack.billed_events == SIZE for answer in acks)
    next_offset = last.drain.next_offset
    assert next_offset == (through[-1] if through else SIZE)
    assert next_offset < len(sent), "it was to be drained in the middle"

    async with serving(mongo_url, name) as server:
        stream, opened = await Ingest.opened(server, writer_id)
        assert opened.next_offset == next_offset
        for offset in range(next_offset, len(sent), SIZE):
            stream.frame(offset, *sent[offset : offset + SIZE])
        stream.end()
        answers = await stream.rest()
        assert sum(answer.ack.billed_events for answer in answers) == len(sent) - next_offset
        assert (await server.wallet(user_id)).credits_micros == FUNDS - len(sent) * PRICE
        await server.assert_sound(user_id)
    await mongo_client.drop_database(name)


async def test_an_expired_key_takes_its_idle_stream_with_it(
    clocked: Served, manual_clock: ManualClock
) -> None:
    expires_time = at(manual_clock() + 1_000)
    user_id = await clocked.new_wallet(FUNDS)
    async with partner(clocked, expires_time=expires_time) as other:
        stream, _ = await Ingest.opened(other, new_key())
        stream.frame(0, usage_event(user_id))
        assert (await stream.answer("ack")).billed_events == 1
        manual_clock.advance(1_000)
        with refused("API_KEY_EXPIRED"):
            await stream.rest()
    assert (await clocked.wallet(user_id)).credits_micros == FUNDS - PRICE
