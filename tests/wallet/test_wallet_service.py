from tests.serving import ManualClock, Served, new_user


async def test_a_wallet_is_made_once_per_user(served: Served) -> None:
    user_id = new_user()
    first = await served.wallet(await served.new_wallet(user_id=user_id))
    again = await served.wallet(await served.new_wallet(user_id=user_id))
    assert first.id == again.id


async def test_clock(clocked: Served, manual_clock: ManualClock) -> None:
    user_id = await clocked.new_wallet(5)
    manual_clock.advance(1_000)
    await clocked.assert_sound(user_id)
