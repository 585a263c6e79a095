"""Holds placed and ended while everything dies: each call has one effect, however often made."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz_client import ZaazClient, ZaazError

from tests.crash.killer import Killer, Victim
from tests.holds.conftest import HELD_MICROS, RELEASE
from tests.holds.work import assert_ended_once, holds_of
from tests.run.command import Command
from tests.serving import MODEL, Served, connected, new_key
from tests.workers.alerts import alerts_of, set_threshold, until_alerts

CALLERS = 12
HOLDS_A_CALLER = 25
RICH_USERS, POOR_USERS = 4, 4
RICH_FUNDS = 10**12
POOR_FUNDS = 3 * HELD_MICROS + 1
RETRY_SECONDS = (0.02, 0.2)
WORK_SECONDS = 120.0


@dataclass(slots=True)
class Outcome:
    """What the client was told in the end of a hold and of its end."""

    user_id: str
    calls: list[tuple[str, Any]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


class Callers:
    """Make their calls until each is answered, always under the same request_id."""

    def __init__(self, client: ZaazClient, rng: random.Random) -> None:
        self.outcomes: list[Outcome] = []
        self._client = client
        self._rng = rng

    async def run(self, user_ids: list[str]) -> None:
        """One caller: a hold for each of these, one after the other."""
        for user_id in user_ids:
            outcome = Outcome(user_id)
            placed = await self._make(outcome, "AuthorizeUsage", authorization(user_id))
            if placed.allowed:
                if self._rng.random() < 0.3:
                    extension = pb.ExtendHoldRequest(
                        request_id=new_key(), hold_id=placed.hold.id, reported=used(100, 50)
                    )
                    await self._make(outcome, "ExtendHold", extension)
                await self._make(outcome, *self._ending(placed.hold.id))
            self.outcomes.append(outcome)

    def _ending(self, hold_id: str) -> tuple[str, Any]:
        if self._rng.random() < 0.3:
            return "ReleaseHold", pb.ReleaseHoldRequest(request_id=new_key(), hold_id=hold_id)
        usage = self._rng.choice([used(500, 250), used(1_000, 500), used(1_500, 750)])
        key = self._rng.choice(["", new_key()])
        request = pb.CaptureHoldRequest(
            request_id=new_key(), hold_id=hold_id, usage=usage, usage_key=key
        )
        return "CaptureHold", request

    async def _make(self, outcome: Outcome, name: str, request: Any) -> Any:
        answer = await self.call(name, request)
        outcome.calls.append((name, request))
        outcome.answers.append(answer)
        return answer

    async def call(self, name: str, request: Any) -> Any:
        """The answer, however many tries it takes."""
        while True:
            try:
                return await getattr(self._client.process, name)(request)
            except ZaazError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(self._rng.uniform(*RETRY_SECONDS))


def authorization(user_id: str) -> pb.AuthorizeUsageRequest:
    request = pb.AuthorizeUsageRequest(
        request_id=new_key(),
        user_id=user_id,
        ai_model=MODEL,
        max_input_tokens=1_000,
        max_output_tokens=500,
        disconnect_policy=RELEASE,
    )
    request.ttl.FromSeconds(3_600)
    return request


def used(input_tokens: int, output_tokens: int) -> pb.HoldUsage:
    return pb.HoldUsage(input_tokens=input_tokens, output_tokens=output_tokens)


async def assert_one_effect_each(
    served: Served, funds: dict[str, int], outcomes: list[Outcome]
) -> None:
    """The wallets' holds and transactions are those that were answered, and no others."""
    for user_id, granted in funds.items():
        mine = [outcome for outcome in outcomes if outcome.user_id == user_id]
        allowed = [outcome for outcome in mine if outcome.answers[0].allowed]
        held = {hold.id: hold for hold in await holds_of(served, user_id)}
        assert held.keys() == {outcome.answers[0].hold.id for outcome in allowed}
        spent = 0
        for outcome in allowed:
            last = outcome.answers[-1]
            assert held[last.hold.id].ended_by_id == last.hold.ended_by_id
            assert held[last.hold.id].captured_micros == last.hold.captured_micros
            if isinstance(last, pb.CaptureHoldResponse):
                spent += last.transaction.credits_micros
        assert await assert_ended_once(served, user_id) == spent
        assert (await served.wallet(user_id)).credits_micros == granted - spent >= 0
        entries = await served.transactions(user_id)
        assert len(entries) == 1 + sum(len(outcome.calls) for outcome in allowed)


async def test_each_call_has_one_effect(server: Command, rng: random.Random, rounds: int) -> None:
    target, key = server.ready["grpc"], server.ready["api_key"]
    async with connected(target, key) as served:
        rich = [await served.new_wallet(RICH_FUNDS) for _ in range(RICH_USERS)]
        poor = [await served.new_wallet(POOR_FUNDS) for _ in range(POOR_USERS)]
    funds = dict.fromkeys(rich, RICH_FUNDS) | dict.fromkeys(poor, POOR_FUNDS)
    killer = Killer(server, rng, rng.sample(list(Victim), len(Victim)))
    async with ZaazClient(target, key) as client:
        callers = Callers(client, rng)
        answered: Callable[[], int] = lambda: len(callers.outcomes)  # noqa: E731
        async with asyncio.timeout(WORK_SECONDS + 20 * rounds), asyncio.TaskGroup() as tasks:
            tasks.create_task(killer.run(answered, CALLERS * HOLDS_A_CALLER, rounds))
            for _ in range(CALLERS):
                users = [rng.choice(rich + poor) for _ in range(HOLDS_A_CALLER)]
                tasks.create_task(callers.run(users))
        assert killer.struck == rounds

        # Made once more, with all holds over: every call is answered as it was at first.
        for outcome in callers.outcomes:
            if outcome.answers[0].allowed:
                calls = (callers.call(name, request) for name, request in outcome.calls)
                for again, first in zip(await asyncio.gather(*calls), outcome.answers, strict=True):
                    assert again.hold == first.hold
    async with connected(target, key) as served:
        await assert_one_effect_each(served, funds, callers.outcomes)


async def test_alerts_survive_between_the_commit_and_their_keeping(
    server: Command, rng: random.Random
) -> None:
    """Killed the moment that callers are answered: what was committed is told of once."""
    target, key = server.ready["grpc"], server.ready["api_key"]
    async with connected(target, key) as served:
        users = [await served.new_wallet(2) for _ in range(20)]
        for user_id in users:
            await set_threshold(served, user_id, 2)
        await asyncio.gather(*(served.consume(user_id, 1) for user_id in users))
        await server.kill_everything()
    await server.start()
    async with connected(target, key) as served:
        for user_id in users:
            await until_alerts(served, user_id, 1)
        marker = await served.new_wallet(1)
        await served.consume(marker, 1)
        await until_alerts(served, marker, 1)
        for user_id in users:
            assert len(await alerts_of(served, user_id)) == 1
