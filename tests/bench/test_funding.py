"""Wallets that are funded without RPCs are as sound as those that are funded with them."""

from bench.funding import fund_wallets
from tests.serving import Served


async def test_wallets_funded_in_great_number_are_sound(served: Served, mongo_url: str) -> None:
    users = await fund_wallets(mongo_url, 300, 5_000, "test_served")
    assert len(set(users)) == 300
    for user_id in users[::60]:
        wallet = await served.wallet(user_id)
        assert (wallet.credits_micros, wallet.available_micros, wallet.sequence) == (
            5_000,
            5_000,
            1,
        )
        await served.assert_sound(user_id)
    # The server goes on from there.
    await served.consume(users[0], 2_000)
    assert (await served.wallet(users[0])).credits_micros == 3_000
    await served.assert_sound(users[0])
