"""What a use costs in all: its model's tokens and its endpoint's fixed credits."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

from bson import ObjectId

from server.credits.prices.model import CreditPriceVersion, PriceBook, ProfitVersion, reckon
from server.kernel.clock import iso
from server.kernel.errors import DomainError, Reason
from server.kernel.money import in_range
from server.ledger.model import Charge, PinnedPrices, Tokens


class KnownEndpoint(Protocol):
    """A live endpoint."""

    @property
    def id(self) -> ObjectId:
        """Its row's."""


class Endpoints(Protocol):
    """The port to the catalog: endpoints by their value, at a time in milliseconds."""

    def find(self, value: str) -> KnownEndpoint | None:
        """The live endpoint."""

    def credits_at(self, value: str, time_ms: int) -> int | None:
        """Micro-credits per use that were in force; None: no such endpoint was."""

    def id_at(self, value: str, time_ms: int) -> ObjectId | None:
        """Which endpoint it was, also of one that is gone."""

    def version_at(self, value: str, time_ms: int) -> ObjectId | None:
        """The history row that was in force."""


class Pricing:
    """Prices uses by the books in force. `prices` and `endpoints` give the newest ones."""

    def __init__(self, prices: Callable[[], PriceBook], endpoints: Callable[[], Endpoints]) -> None:
        self._prices = prices
        self._endpoints = endpoints

    def charge(
        self,
        feature_endpoint: str,
        ai_model: str,
        input_tokens: int,
        output_tokens: int,
        cache_read_tokens: int,
        cache_write_tokens: int,
        time_ms: int,
    ) -> Charge:
        """What a use of this endpoint, this model or both cost at `time_ms`. "": none of it.

        An endpoint's credits are all profit; one that is switched off has been used all the
        same, so it is billed. FEATURE_ENDPOINT_NOT_FOUND when no such endpoint was in force,
        PRICE_NOT_FOUND when the model had no price, AMOUNT_OUT_OF_RANGE beyond int64.
        """
        tokens = (input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)
        if not feature_endpoint:
            return self._prices().charge(ai_model, time_ms, *tokens)
        credits_micros = self._endpoints().credits_at(feature_endpoint, time_ms)
        if credits_micros is None:
            raise _not_in_force(feature_endpoint, time_ms)
        if ai_model:
            return _with_endpoint(self._prices().charge(ai_model, time_ms, *tokens), credits_micros)
        prices = self._prices().prices
        # Nothing was priced by them: they only say what was in force, if anything was.
        rates = (_in_force(prices.credit_prices, time_ms), _in_force(prices.profits, time_ms))
        return _with_endpoint(Charge(0, 0, 0, 0, 0, 0, *rates), credits_micros)

    def pin(self, feature_endpoint: str, ai_model: str, time_ms: int) -> PinnedPrices:
        """What `charge` goes by at `time_ms`, with the same refusals."""
        pinned = _NO_PRICES
        if ai_model or not feature_endpoint:
            pinned = self._prices().pin(ai_model, time_ms)
        if not feature_endpoint:
            return pinned
        endpoints = self._endpoints()
        credits_micros = endpoints.credits_at(feature_endpoint, time_ms)
        if credits_micros is None:
            raise _not_in_force(feature_endpoint, time_ms)
        if not ai_model:
            prices = self._prices().prices
            pinned = pinned._replace(
                credit_price_micros=_in_force(prices.credit_prices, time_ms),
                profit_ppm=_in_force(prices.profits, time_ms),
            )
        model, setting, profit, _ = pinned.versions
        version = endpoints.version_at(feature_endpoint, time_ms)
        return pinned._replace(
            endpoint_credits_micros=credits_micros, versions=(model, setting, profit, version)
        )

    def endpoint_id(self, feature_endpoint: str) -> ObjectId | None:
        """The live endpoint of this value."""
        endpoint = self._endpoints().find(feature_endpoint)
        return None if endpoint is None else endpoint.id

    def endpoint_id_at(self, feature_endpoint: str, time_ms: int) -> ObjectId | None:
        """The endpoint that a use was of. None without one."""
        return self._endpoints().id_at(feature_endpoint, time_ms) if feature_endpoint else None


_NO_PRICES = PinnedPrices((), (), 0, 0, 0, (None, None, None, None))
"""Of a use of no model."""


def charge_at(prices: PinnedPrices, tokens: Tokens) -> Charge:
    """What a use costs at pinned prices: as `Pricing.charge` when they were pinned."""
    if not prices.rates:
        rates = (prices.credit_price_micros, prices.profit_ppm)
        return _with_endpoint(Charge(0, 0, 0, 0, 0, 0, *rates), prices.endpoint_credits_micros)
    charge = reckon(
        prices.bounds, prices.rates, prices.credit_price_micros, prices.profit_ppm, *tokens
    )
    return _with_endpoint(charge, prices.endpoint_credits_micros)


def endpoint_not_found(value: str) -> DomainError:
    """FEATURE_ENDPOINT_NOT_FOUND."""
    return DomainError(
        Reason.FEATURE_ENDPOINT_NOT_FOUND,
        f"no feature endpoint has the value {value}",
        {"feature_endpoint": value},
    )


def _not_in_force(value: str, time_ms: int) -> DomainError:
    return DomainError(
        Reason.FEATURE_ENDPOINT_NOT_FOUND,
        f"no feature endpoint {value} was in force at {iso(time_ms)}",
        {"feature_endpoint": value, "occurred_time": iso(time_ms)},
    )


def _with_endpoint(charge: Charge, credits_micros: int) -> Charge:
    total_micros = in_range("credits_micros", charge.credits_micros + credits_micros)
    # Written out: `_replace` costs three times as much.
    return Charge(
        total_micros,
        charge.input_credits_micros,
        charge.output_credits_micros,
        charge.cost_credits_micros,
        charge.profit_credits_micros + credits_micros,
        charge.cost_price_micros,
        charge.credit_price_micros,
        charge.profit_ppm,
        credits_micros,
    )


def _in_force(versions: Sequence[CreditPriceVersion | ProfitVersion], time_ms: int) -> int:
    place = bisect_right(versions, time_ms, key=lambda version: version[0])
    return (versions[place - 1][1] or 0) if place else 0
