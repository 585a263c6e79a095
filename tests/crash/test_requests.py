"""Grants and consumes, tried again with the same request_id while everything dies.

However often a request is sent, it has one effect or, refused, none; and what
it is answered in the end is what became of it.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from zaaz.credits.v1.credits_service_pb2 import (
    ConsumeCreditsRequest,
    ConsumeCreditsResponse,
    GrantCreditsRequest,
    GrantCreditsResponse,
)
from zaaz.ledger.v1.credits_transaction_pb2 import CreditsTransaction
from zaaz.ledger.v1.grant_pb2 import INCREASE_SOURCE_BONUS
from zaaz_client import InsufficientCredits, ZaazClient, ZaazError

from tests.crash.killer import Killer, Victim
from tests.run.command import Command
from tests.serving import Served, connected, new_key

CALLERS = 16
REQUESTS_A_CALLER = 60
RICH_USERS, POOR_USERS = 4, 4
RICH_FUNDS = 10**12
POOR_FUNDS = 250_000
"""Less than is asked of a poor user: every last micro-credit is fought for."""
MAX_CONSUME = 10_000
RETRY_SECONDS = (0.02, 0.2)
WORK_SECONDS = 120.0

Request = ConsumeCreditsRequest | GrantCreditsRequest


@dataclass(slots=True)
class Outcome:
    """What the client was told in the end; None: refused."""

    request: Request
    transaction: CreditsTransaction | None


class Callers:
    """Send their requests until each is answered."""

    def __init__(self, client: ZaazClient, rng: random.Random) -> None:
        self.outcomes: list[Outcome] = []
        self._client = client
        self._rng = rng

    async def run(self, requests: list[Request]) -> None:
        """One caller: one request after the other."""
        for request in requests:
            self.outcomes.append(Outcome(request, await self.send(request)))

    async def send(self, request: Request) -> CreditsTransaction | None:
        """The transaction, however many tries it takes; None where funds are short."""
        while True:
            try:
                return await self._call(request)
            except InsufficientCredits:
                return None
            except ZaazError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(self._rng.uniform(*RETRY_SECONDS))

    async def _call(self, request: Request) -> CreditsTransaction:
        answer: GrantCreditsResponse | ConsumeCreditsResponse
        if isinstance(request, GrantCreditsRequest):
            answer = await self._client.credits.GrantCredits(request)
        else:
            answer = await self._client.credits.ConsumeCredits(request)
        return answer.transaction


def make_requests(rich: list[str], poor: list[str], rng: random.Random) -> list[Request]:
    """Consumes for all, grants for the rich alone."""
    requests: list[Request] = []
    for _ in range(REQUESTS_A_CALLER):
        user_id = rng.choice(rich + poor)
        if user_id in rich and rng.random() < 0.4:
            requests.append(
                GrantCreditsRequest(
                    request_id=new_key(),
                    user_id=user_id,
                    credits_micros=rng.randint(1, MAX_CONSUME),
                    source=INCREASE_SOURCE_BONUS,
                )
            )
        else:
            requests.append(
                ConsumeCreditsRequest(
                    request_id=new_key(),
                    user_id=user_id,
                    credits_micros=rng.randint(1, MAX_CONSUME),
                )
            )
    return requests


async def assert_one_effect_each(
    served: Served, funds: dict[str, int], outcomes: list[Outcome]
) -> None:
    """The wallets' transactions are those that were answered, and no others."""
    balances = dict(funds)
    answered: dict[str, Counter[str]] = {user_id: Counter() for user_id in funds}
    for outcome in outcomes:
        if outcome.transaction is not None:
            user_id, amount = outcome.request.user_id, outcome.request.credits_micros
            sign = 1 if isinstance(outcome.request, GrantCreditsRequest) else -1
            balances[user_id] += sign * amount
            answered[user_id][outcome.request.request_id] += 1
    for user_id in funds:
        transactions = await served.transactions(user_id)
        assert Counter(row.request_id for row in transactions[1:]) == answered[user_id]
        assert (await served.wallet(user_id)).credits_micros == balances[user_id] >= 0
        await served.assert_sound(user_id)


async def test_each_request_has_one_effect(
    server: Command, rng: random.Random, rounds: int
) -> None:
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
            total = CALLERS * REQUESTS_A_CALLER
            tasks.create_task(killer.run(answered, total, rounds))
            for _ in range(CALLERS):
                tasks.create_task(callers.run(make_requests(rich, poor, rng)))
        assert killer.struck == rounds

        # Asked once more, with the funds spent: every request is answered as it was at first.
        effective = [outcome for outcome in callers.outcomes if outcome.transaction is not None]
        again = await asyncio.gather(*(callers.send(outcome.request) for outcome in effective))
        assert again == [outcome.transaction for outcome in effective]
    async with connected(target, key) as served:
        await assert_one_effect_each(served, funds, callers.outcomes)
