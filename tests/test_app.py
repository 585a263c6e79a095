"""What the composition root ties together, seen from outside."""

import asyncio
from urllib.request import urlopen
from uuid import uuid4

from server.app import running
from server.config import Settings
from server.realtime.wallet_changes import wallet_channel
from server.rpc.logs import configure_logging
from tests.serving import SECRET, connected, make_key, new_user


async def test_a_committed_change_reaches_watchers_and_metrics(mongo_url: str) -> None:
    name = f"test_{uuid4().hex[:16]}"
    settings = Settings(
        grpc_address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        mongo_url=mongo_url,
        mongo_database=name,
        secret=SECRET,
    )
    async with running(settings, configure_logging("ERROR")) as server:
        key = await make_key(mongo_url, name, "tests", ["admin"])
        user_id = new_user()
        subscription = server.realtime.subscribe(wallet_channel(user_id))
        async with connected(str(server.address), key) as client, asyncio.timeout(20):
            await client.new_wallet(700, user_id)
            await client.consume(user_id, 200)
            async for change in subscription:
                if change["sequence"] == 2:
                    break
        subscription.close()
        page = await asyncio.to_thread(_metrics, str(server.metrics_address))

    assert change["credits_micros"] == 500
    assert "zaaz_ledger_entries_total 2.0" in page
    assert "zaaz_ledger_queued_entries 0.0" in page


def _metrics(address: str) -> str:
    with urlopen(f"http://{address}/metrics") as answer:
        return str(answer.read(), "utf-8")
