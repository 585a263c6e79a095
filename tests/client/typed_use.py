# mypy: disallow-any-expr
"""What users write: only for type checkers to read (`test_typing.py`).

An expression whose type is not known is an error here, as is an ignore where
nothing is wrong: what must be refused is ignored.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import assert_type

from zaaz.credits.v1.credits_service_pb2 import ConsumeCreditsRequest, ConsumeCreditsResponse
from zaaz.credits.v1.usage_service_pb2 import UsageEvent
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1.wallet_service_pb2 import (
    GetWalletRequest,
    GetWalletResponse,
    ListWalletsRequest,
    ListWalletsResponse,
)
from zaaz_client import (
    Charge,
    FieldViolation,
    InsufficientCredits,
    KeyFile,
    NotAuthorized,
    RejectedEvent,
    SpoolSettings,
    Tls,
    UsageStreamSettings,
    WalletEvent,
    WatchSettings,
    WhenFull,
    ZaazClient,
    ZaazError,
    iterate,
    pages,
    retry_within,
)
from zaaz_client.blocking import BlockingZaazClient
from zaaz_client.statements import FORMATS, verify
from zaaz_client.statements.download import signing_keys, statement_lines

USER = "65f0000000000000000000aa"


async def calls(client: ZaazClient) -> None:
    request = GetWalletRequest(user_id=USER)
    assert_type(await client.wallets.GetWallet(request, timeout=3), GetWalletResponse)
    consume = ConsumeCreditsRequest(user_id=USER, request_id="c-1", credits_micros=1)
    answer = await retry_within(client.credits.ConsumeCredits, consume, limit_seconds=3)
    assert_type(answer, ConsumeCreditsResponse)
    await client.wallets.GetWallet(consume)  # type: ignore[arg-type]
    GetWalletRequest(user_id=7)  # type: ignore[arg-type]
    GetWalletRequest(user="")  # type: ignore[call-arg]
    (await client.wallets.GetWallet(request)).wallets  # type: ignore[attr-defined]  # noqa: B018


async def lists(client: ZaazClient) -> None:
    rows = iterate(client.wallets.ListWallets, ListWalletsRequest(), limit=3, prefetch=True)
    assert_type(rows, AsyncIterator[Wallet])
    found = pages(client.wallets.ListWallets, ListWalletsRequest())
    assert_type(found, AsyncIterator[ListWalletsResponse])


async def processes(client: ZaazClient) -> None:
    try:
        async with client.credit_process(USER, ai_model="a/b", max_input_tokens=1) as use:
            use.report(input_tokens=1)
        assert_type(use.cost_micros, int)
        assert_type(use.charge, Charge | None)
        use.report(input_tokens="1")  # type: ignore[arg-type]
    except NotAuthorized as error:
        assert_type(error.find(InsufficientCredits), InsufficientCredits | None)


def errors(error: ZaazError) -> None:
    assert_type(error.reason, str)
    assert_type(error.metadata, Mapping[str, str])
    assert_type(error.violations, tuple[FieldViolation, ...])
    assert_type(error.retry_delay, timedelta | None)


async def streams(client: ZaazClient, folder: Path) -> None:
    def told(rejected: RejectedEvent) -> None:
        assert_type(rejected.error, ZaazError)

    spool = SpoolSettings(directory=folder, when_full=WhenFull.RAISE)
    settings = UsageStreamSettings(stall_timeout_seconds=60)
    async with client.usage_stream("w", on_rejected=told, settings=settings, spool=spool) as stream:
        assert_type(await stream.send(UsageEvent(usage_key="k")), int)
        assert_type(await stream.flush(), None)
        await stream.send(ListWalletsRequest())  # type: ignore[arg-type]
    async with client.watch_wallet(USER, settings=WatchSettings()) as events:
        assert_type(await anext(events), WalletEvent)


async def statements(client: ZaazClient, file: Path) -> None:
    lines = statement_lines(client, USER, FORMATS["csv"])
    assert_type(lines, AsyncIterator[str])
    with file.open("rb") as opened:
        assert_type(verify(opened, (await signing_keys(client)).values()).good, bool)


def threads(folder: Path) -> None:
    tls = Tls(roots=folder / "ca.pem")
    with BlockingZaazClient("zaaz:443", KeyFile(folder / "key"), tls=tls) as client:
        assert_type(client.wallets.GetWallet(GetWalletRequest()), GetWalletResponse)
        for wallet in client.each(
            lambda zaaz: iterate(zaaz.wallets.ListWallets, ListWalletsRequest())
        ):
            assert_type(wallet, Wallet)
