"""The SDK's watch of a wallet: against a scripted server, and through cut connections."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import zaaz_client.watch
from grpc_status import rpc_status
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1 import wallet_service_pb2 as pb
from zaaz.wallet.v1.wallet_service_pb2_grpc import (
    WalletServiceServicer,
    add_WalletServiceServicer_to_server,
)
from zaaz_client import (
    AccessRefused,
    InternalError,
    Stalled,
    StreamClosed,
    WalletChanged,
    WalletEvent,
    WalletNotFound,
    WalletSnapshot,
    WalletUnchanged,
    WalletWatch,
    WatchSettings,
    ZaazClient,
)

from tests.serving import Served

from .peer import KEY, Peer, status
from .proxy import CuttingProxy
from .waits import clocked, without_jitter

USER = "65f0000000000000000000aa"
QUICK = WatchSettings(min_backoff_seconds=0.001, max_backoff_seconds=0.01)
PATIENT = WatchSettings(min_backoff_seconds=50, max_backoff_seconds=150)
WAIT_SECONDS = 20.0

Context = grpc.aio.ServicerContext[Any, Any]
Session = Callable[[pb.WatchWalletRequest, Context], Awaitable[None]]


class Watched(WalletServiceServicer):
    """Answers each call of WatchWallet with the next session; the last one goes on."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.tokens: list[str] = []

    async def WatchWallet(  # type: ignore[override]  # noqa: N802
        self, request: pb.WatchWalletRequest, context: Context
    ) -> None:
        self.tokens.append(request.resume_token)
        await self.sessions[min(len(self.tokens), len(self.sessions)) - 1](request, context)


def sending(
    *messages: pb.WatchWalletResponse, then: Callable[[Context], Awaitable[object]] | None = None
) -> Session:
    """Sends these, and then leaves the stream open, or ends it with `then`."""

    async def session(_: pb.WatchWalletRequest, context: Context) -> None:
        for message in messages:
            await context.write(message)
        await (asyncio.Event().wait() if then is None else then(context))

    return session


def failing(
    code: grpc.StatusCode, reason: str, retry_seconds: int | None = None
) -> Callable[[Context], Awaitable[object]]:
    made = rpc_status.to_status(status(code, reason, retry_seconds=retry_seconds))
    return lambda context: context.abort_with_status(made)


LOST = failing(grpc.StatusCode.UNAVAILABLE, "DRAINING")
RESYNC = failing(grpc.StatusCode.OUT_OF_RANGE, "RESYNC_REQUIRED")


async def over(_: Context) -> None:
    """The stream ends with OK."""


def snapshot(sequence: int) -> pb.WatchWalletResponse:
    wallet = Wallet(user_id=USER, sequence=sequence, credits_micros=sequence * 10)
    return pb.WatchWalletResponse(resume_token=f"t{sequence}", snapshot=wallet)


def change(first: int, last: int) -> pb.WatchWalletResponse:
    made = pb.WalletChange(
        first_sequence=first,
        sequence=last,
        credits_micros=last * 10,
        held_micros=1,
        available_micros=2,
        debt_micros=3,
    )
    made.updated_time.FromSeconds(1_800_000_000)
    return pb.WatchWalletResponse(resume_token=f"t{last}", change=made)


def bookmark(sequence: int, token: str) -> pb.WatchWalletResponse:
    return pb.WatchWalletResponse(resume_token=token, bookmark=pb.WatchBookmark(sequence=sequence))


@pytest.fixture
async def watched(peer: Peer) -> Watched:
    """A scripted WalletService."""
    service = Watched()  # type: ignore[abstract]
    await peer.stop()
    peer.services.append(lambda server: add_WalletServiceServicer_to_server(service, server))
    await peer.start()
    return service


@pytest.fixture
async def client(peer: Peer, watched: Watched) -> AsyncIterator[ZaazClient]:
    async with ZaazClient(peer.target, KEY) as connected:
        yield connected


async def take(events: WalletWatch, count: int) -> list[WalletEvent]:
    async with asyncio.timeout(WAIT_SECONDS):
        return [await anext(events) for _ in range(count)]


def places(events: list[WalletEvent]) -> list[tuple[int, int]]:
    """The range of sequences of each; a snapshot's begins at 0."""
    found = []
    for event in events:
        match event:
            case WalletSnapshot(wallet=wallet):
                found.append((0, wallet.sequence))
            case WalletChanged(first_sequence=first, sequence=last):
                found.append((first, last))
    return found


class TestEvents:
    async def test_are_typed(self, client: ZaazClient, watched: Watched) -> None:
        watched.sessions = [sending(snapshot(4), change(5, 7))]
        async with client.watch_wallet(USER) as events:
            first, second = await take(events, 2)
            assert events.resume_token == "t7"
        assert isinstance(first, WalletSnapshot)
        assert (first.wallet.credits_micros, first.resynced) == (40, False)
        moment = datetime.fromtimestamp(1_800_000_000, UTC)
        assert second == WalletChanged(5, 7, 70, 1, 2, 3, moment)

    async def test_bookmarks_are_told_to_who_asks(
        self, client: ZaazClient, watched: Watched
    ) -> None:
        watched.sessions = [sending(snapshot(4), bookmark(4, "fresh"), change(5, 5))]
        async with client.watch_wallet(USER, bookmarks=True) as events:
            await take(events, 1)
            assert await take(events, 1) == [WalletUnchanged(4)]
            assert events.resume_token == "fresh"

    async def test_a_bookmark_freshens_the_token_unseen(
        self, client: ZaazClient, watched: Watched
    ) -> None:
        watched.sessions = [
            sending(snapshot(4), bookmark(4, "fresh"), then=LOST),
            sending(change(5, 5)),
        ]
        async with client.watch_wallet(USER, settings=QUICK) as events:
            assert places(await take(events, 2)) == [(0, 4), (5, 5)]
        assert watched.tokens == ["", "fresh"]

    async def test_of_a_newer_server_are_passed_over(
        self, client: ZaazClient, watched: Watched
    ) -> None:
        new = pb.WatchWalletResponse(resume_token="odd")
        watched.sessions = [sending(snapshot(4), new, change(5, 5))]
        async with client.watch_wallet(USER) as events:
            assert places(await take(events, 2)) == [(0, 4), (5, 5)]


class TestResumes:
    @pytest.mark.parametrize("end", [LOST, over], ids=["lost", "ended"])
    async def test_after_what_came_last(
        self, client: ZaazClient, watched: Watched, end: Callable[[Context], Awaitable[object]]
    ) -> None:
        watched.sessions = [
            sending(snapshot(4), change(5, 6), then=end),
            sending(then=end),
            sending(change(7, 9)),
        ]
        async with client.watch_wallet(USER, settings=QUICK) as events:
            assert places(await take(events, 3)) == [(0, 4), (5, 6), (7, 9)]
        assert watched.tokens == ["", "t6", "t6"]

    async def test_from_a_token_of_before(self, client: ZaazClient, watched: Watched) -> None:
        watched.sessions = [sending(change(5, 6))]
        async with client.watch_wallet(USER, "t4") as events:
            assert places(await take(events, 1)) == [(5, 6)]
        assert watched.tokens == ["t4"]

    async def test_after_a_wait_that_was_cancelled(
        self, client: ZaazClient, watched: Watched
    ) -> None:
        watched.sessions = [sending(snapshot(4)), sending(change(5, 5))]
        async with client.watch_wallet(USER) as events:
            await take(events, 1)
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert places(await take(events, 1)) == [(5, 5)]
        assert watched.tokens == ["", "t4"]

    async def test_after_silence(self, client: ZaazClient, watched: Watched) -> None:
        watched.sessions = [sending(snapshot(4)), sending(change(5, 5))]
        settings = WatchSettings(silence_timeout_seconds=0.2, min_backoff_seconds=0.001)
        async with client.watch_wallet(USER, settings=settings) as events:
            assert places(await take(events, 2)) == [(0, 4), (5, 5)]

    async def test_on_connections_that_are_cut_at_any_byte(self, served: Served) -> None:
        chance = random.Random(7)
        user_id = await served.new_wallet(1_000_000)
        cuts = iter([chance.randint(300, 1_200) for _ in range(4)])
        async with (
            asyncio.timeout(60),
            CuttingProxy(int(served.target.rpartition(":")[2]), cuts) as proxy,
            ZaazClient(proxy.target, served.api_key) as client,
            client.watch_wallet(user_id, settings=QUICK) as events,
        ):
            (first,) = await take(events, 1)
            assert isinstance(first, WalletSnapshot)
            known = first.wallet.sequence
            for number in range(1, 41):
                await served.consume(user_id, 1)
                event = await anext(events)
                assert isinstance(event, WalletChanged)
                assert (event.first_sequence, event.sequence) == (known + 1, known + 1)
                assert event.credits_micros == 1_000_000 - number
                known = event.sequence
            assert proxy.cut_connections == 4


class TestWaits:
    async def test_longer_each_time_until_something_is_told(
        self, client: ZaazClient, watched: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_jitter(monkeypatch)
        clock = clocked(monkeypatch, zaaz_client.watch)
        watched.sessions = [sending(then=LOST)] * 3
        watched.sessions += [sending(snapshot(4), then=LOST), sending(change(5, 5))]
        async with client.watch_wallet(USER, settings=PATIENT) as events:
            assert places(await take(events, 2)) == [(0, 4), (5, 5)]
        assert clock.sleeps == [50, 100, 150, 50]

    async def test_for_what_the_server_asks(
        self, client: ZaazClient, watched: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_jitter(monkeypatch)
        clock = clocked(monkeypatch, zaaz_client.watch)
        full = failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", retry_seconds=7)
        watched.sessions = [sending(then=full), sending(snapshot(4))]
        async with client.watch_wallet(USER, settings=PATIENT) as events:
            assert places(await take(events, 1)) == [(0, 4)]
        assert clock.sleeps == [57]


class TestResync:
    async def test_takes_a_snapshot_and_says_so(self, client: ZaazClient, watched: Watched) -> None:
        watched.sessions = [
            sending(snapshot(4), then=LOST),
            sending(then=RESYNC),
            sending(snapshot(2), change(3, 3)),
        ]
        async with client.watch_wallet(USER, settings=QUICK) as events:
            first, second, third = await take(events, 3)
        assert isinstance(second, WalletSnapshot)
        assert second.resynced
        assert places([first, second, third]) == [(0, 4), (0, 2), (3, 3)]
        assert watched.tokens == ["", "t4", ""]

    @pytest.mark.parametrize("odd", [change(6, 7), change(4, 5), bookmark(5, "t5")])
    async def test_when_a_message_does_not_follow(
        self, client: ZaazClient, watched: Watched, odd: pb.WatchWalletResponse
    ) -> None:
        watched.sessions = [sending(snapshot(4), odd), sending(snapshot(7))]
        async with client.watch_wallet(USER, bookmarks=True, settings=QUICK) as events:
            _, second = await take(events, 2)
        assert isinstance(second, WalletSnapshot)
        assert (second.wallet.sequence, second.resynced) == (7, True)
        assert watched.tokens == ["", ""]


class TestEnds:
    @pytest.mark.parametrize(
        ("end", "error"),
        [
            (failing(grpc.StatusCode.NOT_FOUND, "WALLET_NOT_FOUND"), WalletNotFound),
            (failing(grpc.StatusCode.UNAUTHENTICATED, "API_KEY_REVOKED"), AccessRefused),
        ],
    )
    async def test_for_good_is_raised(
        self,
        client: ZaazClient,
        watched: Watched,
        end: Callable[[Context], Awaitable[object]],
        error: type[Exception],
    ) -> None:
        watched.sessions = [sending(snapshot(4), then=end)]
        async with client.watch_wallet(USER) as events:
            await take(events, 1)
            with pytest.raises(error):
                await take(events, 1)

    async def test_with_a_server_that_keeps_failing(
        self, client: ZaazClient, watched: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zaaz_client.watch, "MAX_DEFECTIVE_TRIES", 3)
        watched.sessions = [sending(then=failing(grpc.StatusCode.INTERNAL, "INTERNAL"))]
        async with client.watch_wallet(USER, settings=QUICK) as events:
            with pytest.raises(InternalError):
                await take(events, 1)
        assert len(watched.tokens) == 4

    async def test_when_nobody_was_heard_of_for_too_long(
        self, client: ZaazClient, watched: Watched
    ) -> None:
        watched.sessions = [sending(then=LOST)]
        settings = WatchSettings(
            stall_timeout_seconds=0.05, min_backoff_seconds=0.001, max_backoff_seconds=0.01
        )
        async with client.watch_wallet(USER, settings=settings) as events:
            with pytest.raises(Stalled):
                await take(events, 1)

    async def test_when_it_is_closed(self, client: ZaazClient, watched: Watched) -> None:
        watched.sessions = [sending(snapshot(4))]
        async with client.watch_wallet(USER) as events:
            await take(events, 1)
        assert [event async for event in events] == []

    async def test_when_the_client_is_closed(self, client: ZaazClient, watched: Watched) -> None:
        watched.sessions = [sending(snapshot(4))]
        async with client.watch_wallet(USER) as events:
            await take(events, 1)
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(StreamClosed):
                await waiting
            with pytest.raises(StreamClosed):
                await anext(events)


@pytest.mark.parametrize(
    "wrong",
    [
        {"silence_timeout_seconds": 0},
        {"stall_timeout_seconds": 0},
        {"min_backoff_seconds": 0},
        {"min_backoff_seconds": 2, "max_backoff_seconds": 1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if len(wrong) == 1 else "at least"):
        WatchSettings(**wrong)
