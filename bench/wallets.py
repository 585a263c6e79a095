"""Funded wallets, made as a partner would: CreateWallet, then GrantCredits."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
from bson import ObjectId
from zaaz.credits.v1 import credits_service_pb2
from zaaz.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from zaaz.ledger.v1.grant_pb2 import INCREASE_SOURCE_PAYMENT
from zaaz.wallet.v1 import wallet_service_pb2
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from bench.processes import Served

CALLERS = 256
FUNDS_MICROS = 10**15
"""More than any run takes: a refusal would be a mistake."""


async def make_wallets(
    channel: grpc.aio.Channel, served: Served, count: int, funds_micros: int = FUNDS_MICROS
) -> list[str]:
    """The users of so many new wallets."""
    users = [str(ObjectId()) for _ in range(count)]
    waiting = iter(users)
    maker = _Maker(channel, served, funds_micros)
    async with asyncio.TaskGroup() as callers:
        for _ in range(min(CALLERS, count)):
            callers.create_task(maker.make(waiting))
    return users


class _Maker:
    def __init__(self, channel: grpc.aio.Channel, served: Served, funds_micros: int) -> None:
        self._wallets: Any = WalletServiceStub(channel)
        self._credits: Any = CreditsServiceStub(channel)
        self._metadata = served.metadata
        self._funds_micros = funds_micros

    async def make(self, waiting: Iterator[str]) -> None:
        for user_id in waiting:
            opening = wallet_service_pb2.CreateWalletRequest(
                request_id=uuid4().hex, user_id=user_id
            )
            await self._wallets.CreateWallet(opening, metadata=self._metadata)
            grant = credits_service_pb2.GrantCreditsRequest(
                request_id=uuid4().hex,
                user_id=user_id,
                credits_micros=self._funds_micros,
                source=INCREASE_SOURCE_PAYMENT,
            )
            await self._credits.GrantCredits(grant, metadata=self._metadata)
