"""Every kind of stream with every end and both ways to pay, in synchronous code."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from zaaz_client.adapters import UsageFigures
from zaaz_client.adapters.blocking import Billing, ProcessBilling, StreamBilling

from tests.client.adapters import wire
from tests.client.adapters.conftest import BlockingAccount
from tests.client.adapters.kinds import BROKEN, KINDS, Kind, estimate
from tests.client.adapters.litellm_calls import QUIET
from tests.client.adapters.openai_calls import BrokeError
from tests.client.adapters.vendor import Events, Vendor
from tests.ledger.calls import soon

pytestmark = [*QUIET, pytest.mark.parametrize("kind", KINDS, ids=str)]


@dataclass(frozen=True)
class Payer:
    account: BlockingAccount
    by_process: bool

    @contextmanager
    def billing(self, model: str) -> Iterator[Billing]:
        if not self.by_process:
            yield StreamBilling(self.account.stream, self.account.user_id)
            return
        with self.account.client.credit_process(
            self.account.user_id, ai_model=model, max_input_tokens=1_000, max_output_tokens=500
        ) as use:
            yield ProcessBilling(use)

    async def bills(self) -> list[tuple[str, UsageFigures]]:
        return await self.account.bills()


@pytest.fixture(params=["event", "process"])
async def payer(request: pytest.FixtureRequest, blocking_account: BlockingAccount) -> Payer:
    return Payer(blocking_account, request.param == "process")


async def used(kind: Kind, vendor: Vendor, payer: Payer, read: Callable[[Any], None]) -> None:
    """A stream of this kind is read, in blocks of its own in a thread."""

    def use() -> None:
        with ExitStack() as blocks:
            clients = []
            if kind.blocking_client is not None:
                clients = [blocks.enter_context(kind.blocking_client(vendor.url))]
            billing = blocks.enter_context(payer.billing(kind.model))
            metered = kind.blocking_metered(*clients, billing, on_unknown_usage=estimate)
            llm = blocks.enter_context(metered)
            read(kind.ask(llm, vendor.url))

    await soon(asyncio.to_thread(use))


def begin(kind: Kind, stream: Any) -> None:
    """Read until "ty" was said, after which nothing comes."""
    for event in stream:
        if kind.said(event) == "ty":
            return
    pytest.fail("it came to its end")


async def seen(vendor: Vendor) -> None:
    """The vendor has seen its reader go."""

    async def look() -> None:
        while not vendor.left:  # noqa: ASYNC110 - the vendor is what is looked at
            await asyncio.sleep(0.01)

    await soon(look())


async def test_read_to_its_end(kind: Kind, vendor: Vendor, payer: Payer) -> None:
    said: list[str] = []

    def read(stream: Any) -> None:
        said.extend(kind.said(event) or "" for event in stream)

    vendor.answers(Events(kind.frames))
    await used(kind, vendor, payer, read)
    assert "".join(said) == "".join(wire.SAID)
    assert await payer.bills() == kind.full


async def test_cut_by_the_network(kind: Kind, vendor: Vendor, payer: Payer) -> None:
    def read(stream: Any) -> None:
        list(stream)

    vendor.answers(wire.cut(kind.begun))
    with pytest.raises(Exception, match=BROKEN):
        await used(kind, vendor, payer, read)
    assert await payer.bills() == kind.broken


@pytest.mark.parametrize("way", ["closed", "with", "left", "dropped"])
async def test_its_reader_leaves(kind: Kind, vendor: Vendor, payer: Payer, way: str) -> None:
    def read(stream: Any) -> None:
        if way == "with":
            with stream:
                begin(kind, stream)
            return
        begin(kind, stream)
        if way == "closed":
            stream.close()
        elif way == "left":
            kept.append(stream)

    kept: list[Any] = []
    vendor.answers(wire.hanging(kind.begun))
    await used(kind, vendor, payer, read)
    if way == "dropped":
        gc.collect()
    await seen(vendor)
    assert await payer.bills() == kind.broken


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
async def test_its_reader_fails(kind: Kind, vendor: Vendor, payer: Payer, inside: bool) -> None:
    def read(stream: Any) -> None:
        with ExitStack() as block:
            if inside:
                block.enter_context(stream)
            begin(kind, stream)
            raise BrokeError

    vendor.answers(wire.hanging(kind.begun))
    with pytest.raises(BrokeError):
        await used(kind, vendor, payer, read)
    await seen(vendor)
    assert await payer.bills() == kind.broken
