"""WalletService but for VerifyWallet, on a real server."""

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.ledger.v1 import wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2 as pb

from tests.ledger.calls import at, refused
from tests.serving import ManualClock, Served, new_key, new_user

FLOOR, CARRY = 1, 2


async def create(served: Served, user_id: str, **fields: Any) -> wallet_pb2.Wallet:
    request = pb.CreateWalletRequest(user_id=user_id, **{"request_id": new_key(), **fields})
    answer: pb.CreateWalletResponse = await served.wallets.CreateWallet(request)
    return answer.wallet


async def update(
    served: Served, user_id: str, *paths: str, request_id: str = "", **fields: Any
) -> wallet_pb2.Wallet:
    request = pb.UpdateWalletRequest(
        request_id=request_id,
        wallet=wallet_pb2.Wallet(user_id=user_id, **fields),
        update_mask=FieldMask(paths=paths) if paths else None,
    )
    answer: pb.UpdateWalletResponse = await served.wallets.UpdateWallet(request)
    return answer.wallet


class TestCreateWallet:
    async def test_makes_an_empty_wallet_with_the_defaults(self, served: Served) -> None:
        user_id = new_user()
        wallet = await create(served, user_id, email="Ada@Example.com")
        assert wallet.user_id == user_id
        assert wallet.email == "ada@example.com"
        assert (wallet.credits_micros, wallet.sequence, list(wallet.grants)) == (0, 0, [])
        assert wallet.overdraft_policy == FLOOR
        assert wallet.type == wallet_pb2.WALLET_TYPE_FREE
        assert wallet == await served.wallet(user_id)

    async def test_is_made_once_per_user(self, served: Served) -> None:
        user_id = new_user()
        first = await create(served, user_id, email="one@example.com")
        again = await create(served, user_id, email="two@example.com")
        assert again == first

    async def test_a_replay_returns_the_first_result(self, served: Served) -> None:
        user_id, request_id = new_user(), new_key()
        first = await create(served, user_id, request_id=request_id)
        await served.grant(user_id, 5)
        assert await create(served, user_id, request_id=request_id) == first

    async def test_a_request_id_stands_for_one_payload(self, served: Served) -> None:
        request_id = new_key()
        await create(served, new_user(), request_id=request_id)
        other = new_user()
        with refused("REQUEST_ID_REUSED") as refusal:
            await create(served, other, request_id=request_id)
        assert refusal.metadata == {"request_id": request_id}
        with refused("WALLET_NOT_FOUND"):
            await served.wallet(other)

    async def test_a_request_id_of_another_operation_is_reused_too(self, served: Served) -> None:
        request_id = new_key()
        user_id = await served.new_wallet()
        await served.grant(user_id, 5, request_id=request_id)
        with refused("REQUEST_ID_REUSED"):
            await create(served, user_id, request_id=request_id)

    async def test_shows_what_expired_before(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet()
        grant = await clocked.grant(user_id, 7, expires_time=at(manual_clock() + 1_000))
        assert grant.wallet.credits_micros == 7
        manual_clock.advance(1_000)
        wallet = await create(clocked, user_id)
        assert wallet.credits_micros == 0
        assert wallet == await clocked.wallet(user_id)

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"user_id": "me"}, "MALFORMED_ID"),
            ({"user_id": "65F0C0FFEE65F0C0FFEE65F0"}, "MALFORMED_ID"),
            ({"email": "nobody"}, "FIELD_INVALID"),
            ({"request_id": ""}, "FIELD_INVALID"),
            ({"request_id": "a b"}, "FIELD_INVALID"),
            ({"request_id": "x" * 129}, "FIELD_INVALID"),
        ],
    )
    async def test_refuses_bad_fields(
        self, served: Served, fields: dict[str, str], reason: str
    ) -> None:
        values = {"request_id": new_key(), "user_id": new_user(), **fields}
        with refused(reason):
            await served.wallets.CreateWallet(pb.CreateWalletRequest(**values))


class TestGetWallet:
    async def test_shows_grants_in_burn_order(self, served: Served) -> None:
        user_id = await served.new_wallet()
        last = (await served.grant(user_id, 1, priority=2)).transaction.id
        first = (await served.grant(user_id, 2, priority=1)).transaction.id
        wallet = await served.wallet(user_id)
        assert [grant.id for grant in wallet.grants] == [first, last]
        assert [grant.remaining_micros for grant in wallet.grants] == [2, 1]
        assert (wallet.credits_micros, wallet.available_micros) == (3, 3)

    async def test_refuses_who_has_none(self, served: Served) -> None:
        user_id = new_user()
        with refused("WALLET_NOT_FOUND") as refusal:
            await served.wallet(user_id)
        assert refusal.metadata == {"user_id": user_id}

    async def test_refuses_a_malformed_id(self, served: Served) -> None:
        with refused("MALFORMED_ID"):
            await served.wallet("65f0")


class TestListWallets:
    async def test_pages_in_the_order_of_making_while_others_are_made(self, served: Served) -> None:
        email = f"{uuid4().hex}@example.com"
        users = [new_user() for _ in range(4)]
        for user_id in users[:3]:
            await create(served, user_id, email=email)
        seen, token = [], ""
        while True:
            page = await self.page(served, email=email, page_size=1, page_token=token)
            seen += [wallet.user_id for wallet in page.wallets]
            if len(seen) == 1:
                await create(served, users[3], email=email)
            token = page.next_page_token
            if not token:
                break
        assert seen == users

    async def test_finds_an_address_in_any_case(self, served: Served) -> None:
        email = f"{uuid4().hex}@example.com"
        wallet = await create(served, new_user(), email=email)
        page = await self.page(served, email=email.upper())
        assert list(page.wallets) == [wallet]
        assert page.next_page_token == ""

    async def test_lists_all_without_a_filter(self, served: Served) -> None:
        for _ in range(2):
            await served.new_wallet()
        page = await self.page(served, page_size=1)
        following = await self.page(served, page_size=1, page_token=page.next_page_token)
        assert page.wallets[0].id < following.wallets[0].id

    async def test_refuses_forged_tokens_and_those_of_another_query(self, served: Served) -> None:
        email = f"{uuid4().hex}@example.com"
        for _ in range(2):
            await create(served, new_user(), email=email)
        token = (await self.page(served, email=email, page_size=1)).next_page_token
        forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
        for bad in (forged, token[:5], "%%%", "ÿ" * 10):
            with refused("PAGE_TOKEN_INVALID"):
                await self.page(served, email=email, page_token=bad)
        with refused("PAGE_TOKEN_INVALID"):
            await self.page(served, email="other@example.com", page_token=token)
        with refused("PAGE_TOKEN_INVALID"):
            await self.page(served, page_token=token)

    async def test_refuses_a_negative_size(self, served: Served) -> None:
        with refused("FIELD_INVALID"):
            await self.page(served, page_size=-1)

    async def page(self, served: Served, **fields: Any) -> pb.ListWalletsResponse:
        answer: pb.ListWalletsResponse = await served.wallets.ListWallets(
            pb.ListWalletsRequest(**fields)
        )
        return answer


class TestUpdateWallet:
    async def test_changes_what_the_mask_names(self, served: Served) -> None:
        user_id = await served.new_wallet()
        await update(served, user_id, overdraft_policy=CARRY, low_balance_threshold_micros=9)
        wallet = await update(
            served, user_id, "low_balance_threshold_micros", overdraft_policy=FLOOR
        )
        assert wallet.overdraft_policy == CARRY
        assert wallet.low_balance_threshold_micros == 0
        assert wallet == await served.wallet(user_id)

    async def test_without_a_mask_changes_what_is_set(self, served: Served) -> None:
        user_id = await served.new_wallet()
        await update(served, user_id, overdraft_policy=CARRY)
        wallet = await update(served, user_id, low_balance_threshold_micros=9)
        assert (wallet.overdraft_policy, wallet.low_balance_threshold_micros) == (CARRY, 9)

    async def test_makes_no_transaction(self, served: Served) -> None:
        user_id = await served.new_wallet(5)
        before = await served.wallet(user_id)
        after = await update(served, user_id, overdraft_policy=CARRY)
        assert (after.sequence, after.chain) == (before.sequence, before.chain)
        assert after.etag != before.etag
        await served.assert_sound(user_id)

    @pytest.mark.parametrize("path", ["email", "credits_micros", "wallet.overdraft_policy", "*"])
    async def test_refuses_other_fields(self, served: Served, path: str) -> None:
        user_id = await served.new_wallet()
        with refused("UPDATE_MASK_INVALID") as refusal:
            await update(served, user_id, "overdraft_policy", path, overdraft_policy=CARRY)
        assert refusal.metadata == {"path": path}
        assert (await served.wallet(user_id)).overdraft_policy == FLOOR

    async def test_refuses_to_change_nothing(self, served: Served) -> None:
        user_id = await served.new_wallet()
        with refused("UPDATE_MASK_INVALID"):
            await update(served, user_id)

    @pytest.mark.parametrize("policy", [0, 3])
    async def test_refuses_a_policy_that_is_none(self, served: Served, policy: Any) -> None:
        user_id = await served.new_wallet()
        with refused("FIELD_INVALID"):
            await update(served, user_id, "overdraft_policy", overdraft_policy=policy)

    async def test_refuses_a_negative_threshold(self, served: Served) -> None:
        user_id = await served.new_wallet()
        with refused("FIELD_INVALID"):
            await update(served, user_id, low_balance_threshold_micros=-1)

    async def test_refuses_no_wallet_and_no_user(self, served: Served) -> None:
        with refused("FIELD_INVALID"):
            await served.wallets.UpdateWallet(pb.UpdateWalletRequest())
        with refused("MALFORMED_ID"):
            await update(served, "", overdraft_policy=CARRY)
        with refused("WALLET_NOT_FOUND"):
            await update(served, new_user(), overdraft_policy=CARRY)

    async def test_takes_the_etag_that_was_read_last(self, served: Served) -> None:
        user_id = await served.new_wallet()
        etag = (await served.wallet(user_id)).etag
        wallet = await update(served, user_id, overdraft_policy=CARRY, etag=etag)
        with refused("ETAG_MISMATCH") as refusal:
            await update(served, user_id, overdraft_policy=FLOOR, etag=etag)
        assert refusal.metadata == {"etag": wallet.etag}
        for nonsense in ("no-etag", "٣", "-1", "0"):
            with refused("ETAG_MISMATCH"):
                await update(served, user_id, overdraft_policy=FLOOR, etag=nonsense)
        assert (await served.wallet(user_id)).overdraft_policy == CARRY

    async def test_credits_that_move_leave_the_etag(self, served: Served) -> None:
        user_id = await served.new_wallet()
        etag = (await served.wallet(user_id)).etag
        await served.grant(user_id, 5)
        await update(served, user_id, overdraft_policy=CARRY, etag=etag)

    async def test_a_replay_returns_the_first_result(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(), new_key()
        etag = (await served.wallet(user_id)).etag
        fields: dict[str, Any] = {"overdraft_policy": CARRY, "etag": etag}
        first = await update(served, user_id, request_id=request_id, **fields)
        await update(served, user_id, overdraft_policy=FLOOR)
        # Its etag does not match any more, and that is no reason to refuse it now.
        assert await update(served, user_id, request_id=request_id, **fields) == first
        assert (await served.wallet(user_id)).overdraft_policy == FLOOR
        with refused("REQUEST_ID_REUSED"):
            await update(served, user_id, request_id=request_id, overdraft_policy=FLOOR)

    async def test_shows_what_expired_before(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet()
        await clocked.grant(user_id, 7, expires_time=at(manual_clock() + 1_000))
        manual_clock.advance(1_000)
        wallet = await update(clocked, user_id, overdraft_policy=CARRY)
        assert (wallet.credits_micros, wallet.sequence) == (0, 2)
        assert wallet == await clocked.wallet(user_id)
        await clocked.assert_sound(user_id)
