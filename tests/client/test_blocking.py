"""The SDK in synchronous code: calls, streams, lists, many threads, Ctrl-C, forks."""

import asyncio
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from zaaz.credits.v1.credits_service_pb2 import (
    ConsumeCreditsRequest,
    ListCreditsTransactionsRequest,
)
from zaaz.credits.v1.usage_service_pb2 import UsageEvent
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest, WatchWalletRequest
from zaaz_client import (
    DeadlineExceeded,
    InsufficientCredits,
    KeyFile,
    SpoolInUse,
    SpoolSettings,
    SpoolStatus,
    StreamClosed,
    Unavailable,
    UsageStream,
    UsageStreamSettings,
    WalletChanged,
    WalletNotFound,
    WalletSnapshot,
    ZaazClient,
    iterate,
)
from zaaz_client.blocking import BlockingCreditProcess, BlockingUsageStream, BlockingZaazClient
from zaaz_client.loop_thread import LoopThread

from tests.ledger.calls import PRICE, soon
from tests.run.command import free_port
from tests.serving import MODEL, Served, new_key, new_user, usage_event

from .peer import KEY, Peer

CREDIT = 1_000_000
_T = TypeVar("_T")


async def in_a_thread(work: Callable[[], _T]) -> _T:
    """As synchronous code runs: the server's loop goes on beside it."""
    done: _T = await soon(asyncio.to_thread(work))
    return done


def client_of(served: Served) -> BlockingZaazClient:
    return BlockingZaazClient(served.target, served.api_key)


def consume(user_id: str, micros: int) -> ConsumeCreditsRequest:
    return ConsumeCreditsRequest(request_id=new_key(), user_id=user_id, credits_micros=micros)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "zaaz client" in thread.name]


async def test_calls_answer_and_raise_typed(served: Served) -> None:
    user_id = await served.new_wallet(5 * CREDIT)

    def work() -> None:
        with client_of(served) as client:
            left = client.credits.ConsumeCredits(consume(user_id, CREDIT)).wallet
            assert left.credits_micros == 4 * CREDIT
            with pytest.raises(InsufficientCredits) as caught:
                client.credits.ConsumeCredits(consume(user_id, 5 * CREDIT))
            assert caught.value.shortfall_micros == CREDIT
            with pytest.raises(WalletNotFound):
                client.wallets.GetWallet(GetWalletRequest(user_id=new_user()))

    await in_a_thread(work)
    assert threads() == []


def test_it_has_every_stub() -> None:
    def stubs(kind: type) -> set[str]:
        return {name for name, found in vars(kind).items() if isinstance(found, property)}

    assert stubs(BlockingZaazClient) >= {
        name for name in stubs(ZaazClient) if name not in {"channel", "_opened"}
    }


async def test_a_usage_stream(served: Served) -> None:
    user_id = await served.new_wallet(CREDIT * CREDIT)

    def events(client: BlockingZaazClient) -> Iterator[UsageEvent]:
        for _ in range(1_200):
            yield usage_event(user_id)
        client.wallets.GetWallet(GetWalletRequest(user_id=user_id))  # whoever makes them may ask

    def work() -> int:
        with client_of(served) as client:
            with client.usage_stream(new_key()) as stream:
                assert stream.send(usage_event(user_id)) == 0
                assert stream.send_nowait(usage_event(user_id)) == 1
                assert stream.send_many(events(client)) == 1_202
                stream.flush()
                assert stream.acknowledged_offset == stream.counters.billed == 1_202
                assert stream.unacknowledged_events() == []
            with pytest.raises(StreamClosed):
                stream.send(usage_event(user_id))
        return stream.counters.billed

    assert await in_a_thread(work) == 1_202
    spent = CREDIT * CREDIT - (await served.wallet(user_id)).credits_micros
    assert spent == 1_202 * PRICE


def test_its_stream_tells_all_that_the_asynchronous_one_does() -> None:
    told = {name for name, found in vars(UsageStream).items() if isinstance(found, property)}
    assert told <= set(vars(BlockingUsageStream))


async def test_a_spool_on_disk(served: Served, tmp_path: Path) -> None:
    user_id = await served.new_wallet(CREDIT)
    spool = SpoolSettings(directory=tmp_path)

    def work() -> SpoolStatus | None:
        with client_of(served) as client, client.usage_stream("w", spool=spool) as stream:
            stream.send_many(usage_event(user_id) for _ in range(3))
            with pytest.raises(RuntimeError, match="without a wait"):
                stream.send_nowait(usage_event(user_id))
            with pytest.raises(SpoolInUse), client.usage_stream("w", spool=spool):
                pass
            stream.flush()
            return stream.spool_status

    status = await in_a_thread(work)
    assert status is not None
    assert (status.unacknowledged_events, status.memory_events, status.trouble) == (0, 0, None)
    assert (tmp_path / "spool.json").exists()


async def test_many_threads_share_it(served: Served) -> None:
    user_id = await served.new_wallet(CREDIT)

    def work() -> None:
        with client_of(served) as client, client.usage_stream(new_key()) as stream:

            def one(number: int) -> None:
                client.credits.ConsumeCredits(consume(user_id, 1))
                stream.send(usage_event(user_id, ai_model=MODEL, input_tokens=1, output_tokens=0))

            with ThreadPoolExecutor(16) as pool:
                list(pool.map(one, range(200)))
            stream.flush()
            assert stream.counters.acknowledged == 200

    await in_a_thread(work)
    assert len(await served.transactions(user_id)) == 401
    await served.assert_sound(user_id)


def begin(client: BlockingZaazClient, user_id: str) -> BlockingCreditProcess:
    return client.credit_process(
        user_id, ai_model=MODEL, max_input_tokens=1_000, max_output_tokens=500
    )


async def test_a_credit_process(served: Served) -> None:
    user_id = await served.new_wallet(2 * PRICE)

    def work() -> None:
        with client_of(served) as client:
            with begin(client, user_id) as use:
                assert use.estimate.credits_micros == PRICE
                assert use.hold.id
                use.report(input_tokens=500, output_tokens=250)
            assert use.cost_micros == PRICE // 2
            assert use.charge is not None
            with (
                pytest.raises(ZeroDivisionError),
                begin(client, user_id) as use,
            ):
                _ = 1 // 0
            assert use.charge is None
            with begin(client, user_id) as use:
                use.report(input_tokens=1)
                use.release()

    await in_a_thread(work)
    wallet = await served.wallet(user_id)
    assert (wallet.credits_micros, wallet.held_micros) == (2 * PRICE - PRICE // 2, 0)


async def test_a_watch(served: Served) -> None:
    user_id = await served.new_wallet(CREDIT)

    def work() -> None:
        with client_of(served) as client, client.watch_wallet(user_id) as events:
            assert isinstance(next(events), WalletSnapshot)
            client.credits.ConsumeCredits(consume(user_id, 1))
            event = next(events)
            assert isinstance(event, WalletChanged)
            assert event.credits_micros == CREDIT - 1
            assert events.resume_token
            threading.Timer(0.05, events.close).start()
            assert list(events) == []
            raw = client.wallets.WatchWallet(WatchWalletRequest(user_id=user_id))
            assert next(iter(raw)).snapshot.credits_micros == CREDIT - 1
            raw.cancel()

    await in_a_thread(work)


async def test_lists_and_whatever_else_the_client_can(served: Served) -> None:
    user_id = await served.new_wallet(CREDIT)
    for _ in range(4):
        await served.consume(user_id, 1)
    request = ListCreditsTransactionsRequest(user_id=user_id, page_size=2)

    def work() -> None:
        with client_of(served) as client:
            listed = client.each(
                lambda zaaz: iterate(zaaz.credits.ListCreditsTransactions, request)
            )
            assert [row.sequence for row in listed] == [5, 4, 3, 2, 1]
            for row in client.each(
                lambda zaaz: iterate(zaaz.credits.ListCreditsTransactions, request)
            ):
                assert row.sequence == 5
                break
            wallet = client.run(
                lambda zaaz: zaaz.wallets.GetWallet(GetWalletRequest(user_id=user_id))
            ).wallet
            assert wallet.credits_micros == CREDIT - 4

    await in_a_thread(work)


async def test_deadlines_are_kept(peer: Peer) -> None:
    peer.open_delay_seconds = 30

    def work() -> None:
        with BlockingZaazClient(peer.target, KEY) as client:
            quick = UsageStreamSettings(open_timeout_seconds=0.1)
            with pytest.raises(Unavailable), client.usage_stream("w", settings=quick):
                pass
        with BlockingZaazClient(f"127.0.0.1:{free_port()}", KEY) as client:
            with pytest.raises((Unavailable, DeadlineExceeded)):
                client.wallets.GetWallet(GetWalletRequest(), timeout=0.5)
            with pytest.raises(NotImplementedError, match="usage_stream"):
                client.usage.IngestUsage(iter(()))

    await in_a_thread(work)


async def test_one_that_is_not_open_says_so(served: Served) -> None:
    def work() -> None:
        client = client_of(served)
        with pytest.raises(RuntimeError, match="with Blocking"):
            _ = client.wallets
        with client:
            stub = client.wallets
        with client:  # again
            client.wallets.GetWallet(GetWalletRequest(user_id=user_id))
        client.close()
        with pytest.raises(StreamClosed):
            stub.GetWallet(GetWalletRequest(user_id=user_id))
        with pytest.raises(ValueError, match="api_key"):
            BlockingZaazClient(served.target, "a b")
        with pytest.raises(FileNotFoundError):
            BlockingZaazClient(served.target, KeyFile("/no/such")).__enter__()

    user_id = await served.new_wallet()
    await in_a_thread(work)
    assert threads() == []


async def test_closing_ends_what_other_threads_wait_for(served: Served) -> None:
    user_id = await served.new_wallet(CREDIT)

    def work() -> None:
        with client_of(served) as client:
            events = client.watch_wallet(user_id)
            next(events)
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(next, events)
                client.close()
                with pytest.raises((StreamClosed, StopIteration)):
                    waiting.result(10)

    await in_a_thread(work)


async def test_in_its_own_loop_it_does_not_wait_for_itself(served: Served) -> None:
    def work() -> None:
        with client_of(served) as client:

            async def again(_: object) -> None:
                client.wallets.GetWallet(GetWalletRequest(user_id=new_user()))

            with pytest.raises(RuntimeError, match="wait for itself"):
                client.run(again)

    await in_a_thread(work)


INTERRUPTED = """
import sys, threading
from zaaz_client.blocking import BlockingCreditProcess, BlockingZaazClient

target, key, user = sys.argv[1:]
with BlockingZaazClient(target, key) as client:
    with client.credit_process(user, ai_model="openai/gpt-4o-mini", max_input_tokens=9) as use:
        with client.watch_wallet(user) as events:
            next(events)
            print("waiting", flush=True)
            try:
                next(events)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                raise
"""


async def test_ctrl_c_ends_the_wait_and_settles(served: Served) -> None:
    user_id = await served.new_wallet(CREDIT)
    arguments = (served.target, served.api_key, user_id)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INTERRUPTED, *arguments, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert await soon(process.stdout.readline()) == b"waiting\n"
    assert (await served.wallet(user_id)).held_micros > 0
    process.send_signal(signal.SIGINT)
    out, err = await soon(process.communicate())
    assert out == b"interrupted\n"
    assert err.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT
    wallet = await served.wallet(user_id)
    assert (wallet.credits_micros, wallet.held_micros) == (CREDIT, 0)


FORKED = """
import os
from zaaz_client.loop_thread import LoopThread

async def work():
    return 7

thread = LoopThread("t")
assert thread.run(work) == 7
child = os.fork()
if child == 0:
    try:
        thread.run(work)
    except RuntimeError as error:
        thread.stop()
        os._exit(0 if "fork" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert thread.run(work) == 7
thread.stop()
"""


async def test_a_fork_is_told_and_not_waited_for() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKED, stderr=PIPE, env={**os.environ, "GRPC_VERBOSITY": "NONE"}
    )
    _, err = await soon(process.communicate())
    assert process.returncode == 0, err.decode()


async def test_what_had_not_begun_is_ended_too() -> None:
    thread = LoopThread("t")
    thread.stop()
    thread.stop()

    async def work() -> None: ...

    with pytest.raises(StreamClosed):
        thread.run(work)
