"""zaaz.catalog.v1.OfferService: between the contract's messages, the rules and the ledger."""

import asyncio
from typing import Any

from zaaz.catalog.v1 import offer_service_pb2 as pb
from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceServicer
from zaaz.common.v1.error_reason_pb2 import ErrorReason

from server.catalog.offers.coupon_use import CouponUse, expiry_ms, redemption_rider
from server.catalog.offers.documents import sold_plan
from server.catalog.offers.listing import Offers
from server.catalog.offers.model import SoldPlan
from server.catalog.offers.quote import CouponAsked, Purchase, period, quote
from server.catalog.offers.store import CouponStore, OfferStore
from server.kernel.clock import Clock
from server.kernel.errors import DomainError
from server.kernel.ids import new_id, parse_id
from server.kernel.principal import current_principal
from server.kernel.timestamps import timestamp
from server.ledger.jobs import Posted
from server.ledger.messages import transaction_message, wallet_message
from server.ledger.model import Profile, Terms
from server.ledger.reader import LedgerReader
from server.ledger.service import Caller, Details, Ledger
from server.mongo.database import Database


class OfferServicer(OfferServiceServicer):
    """What buyers see, what it would cost them, and coupons that are worth credits."""

    def __init__(
        self, database: Database, ledger: Ledger, reader: LedgerReader, clock: Clock
    ) -> None:
        self._store = OfferStore(database)
        self._offers = Offers(self._store)
        self._coupons = CouponStore(database)
        self._uses = CouponUse(database)
        self._ledger = ledger
        self._reader = reader
        self._clock = clock

    async def ListOffers(
        self, request: pb.ListOffersRequest, context: Any
    ) -> pb.ListOffersResponse:
        """All that is sold in a currency."""
        return await self._offers.all(request.currency)

    async def QuotePurchase(
        self, request: pb.QuotePurchaseRequest, context: Any
    ) -> pb.QuotePurchaseResponse:
        """What a purchase would cost and give."""
        purchase = Purchase(
            request.user_id,
            parse_id("package_id", request.package_id),
            parse_id("plan_id", request.plan_id),
            request.currency,
            request.coupon_code,
        )
        profile, sold, asked = await asyncio.gather(
            self._profile(purchase.user_id), self._sold(purchase), self._asked(purchase)
        )
        now_ms = self._clock()
        made = quote(purchase, sold, asked, now_ms)
        answer = pb.QuotePurchaseResponse(
            purchasable=not made.refusals,
            refusals=map(_refusal, made.refusals),
            price_micros=made.price_micros,
            discount_micros=made.discount_micros,
            amount_micros=made.amount_micros,
            currency=request.currency,
            coupon_id="" if asked is None else str(asked.coupon.id),
        )
        if sold is not None:
            _tell_what_is_got(answer, sold.terms, profile, now_ms)
        return answer

    async def RedeemCoupon(
        self, request: pb.RedeemCouponRequest, context: Any
    ) -> pb.RedeemCouponResponse:
        """The credits of a coupon, granted."""
        caller = Caller(current_principal().client_id, request.request_id)
        posted = await self._redeem(caller, request.user_id, request.code.upper())
        if posted.entry is None:
            raise ValueError("a redemption makes an entry")
        answer = pb.RedeemCouponResponse()
        transaction_message(posted.entry, answer.transaction)
        wallet_message(posted.wallet, self._clock(), answer.wallet)
        return answer

    async def _redeem(self, caller: Caller, user_id: str, code: str) -> Posted:
        asked = ("redeem", user_id, code)
        try:
            coupon = await self._uses.redeemable(code)
        except DomainError:
            # It may have been there, and worth something, when this was asked first.
            earlier = await self._ledger.earlier(caller, asked)
            if earlier is None:
                raise
            return earlier
        now_ms = self._clock()
        return await self._ledger.redeem(
            caller,
            user_id,
            coupon.credits_micros,
            expiry_ms(coupon, now_ms),
            redemption_rider(coupon, user_id, now_ms, caller._asdict()),
            asked,
            Details(f"coupon {code}"),
        )

    async def _profile(self, user_id: str) -> Profile:
        if user_id:
            return (await self._reader.wallet(user_id)).profile
        return Profile(new_id(), new_id(), "", self._clock())

    async def _sold(self, purchase: Purchase) -> SoldPlan | None:
        snapshot = await self._store.snapshot(purchase.package_id)
        return None if snapshot is None else sold_plan(snapshot, purchase.plan_id)

    async def _asked(self, purchase: Purchase) -> CouponAsked | None:
        user_id, code = purchase.user_id, purchase.coupon_code
        coupon = await self._coupons.find(code) if code else None
        if coupon is None:
            return None
        return CouponAsked(coupon, await self._coupons.uses(coupon.id, user_id) if user_id else 0)


def _tell_what_is_got(
    answer: pb.QuotePurchaseResponse, terms: Terms, profile: Profile, now_ms: int
) -> None:
    time = period(terms, profile, now_ms)
    answer.credits_micros = terms.credits_micros
    answer.expires_time.CopyFrom(timestamp(time.end_ms))
    answer.is_renewal = time.start_ms > now_ms
    answer.package_plan_id = str(terms.package_plan_id)
    answer.package_history_id = str(terms.package_history_id)


def _refusal(error: DomainError) -> pb.Refusal:
    return pb.Refusal(
        reason=ErrorReason.Value(f"ERROR_REASON_{error.reason.value}"),
        message=error.message,
        metadata=error.metadata,
    )
