"""How a charge came about, in sentences that a support agent can read aloud.

Reckoned again from the versions that were in force, and held against the bill.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from bson import ObjectId
from zaaz.credits.v1 import credits_process_service_pb2 as pb

from server.credits.pricing import Pricing, charge_at
from server.credits.transactions import credits_transaction
from server.kernel.clock import iso
from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.ids import derived_id, parse_id
from server.kernel.money import MICROS
from server.kernel.principal import Principal
from server.kernel.timestamps import timestamp
from server.ledger.messages import usage_message
from server.ledger.model import Charge, Entry, Hold, PinnedPrices, Tokens, Usage
from server.ledger.reader import LedgerReader
from server.ledger.settlement import HOLD_KEY_PREFIX, capture_id

PPM_PER_PERCENT = 10_000


class Explainer:
    """Explains billed usage."""

    def __init__(self, reader: LedgerReader, pricing: Pricing) -> None:
        self._reader = reader
        self._pricing = pricing

    async def explain(
        self, request: pb.ExplainChargeRequest, principal: Principal
    ) -> pb.ExplainChargeResponse:
        """USAGE_NOT_FOUND, also for those of other clients; PRICE_NOT_FOUND.

        What it cost us and what we earn by it is for administrators.
        """
        entry, hold = await self._charged(request, principal)
        usage, charge = entry.usage, entry.charge
        assert usage is not None
        assert charge is not None
        pinned = hold is not None and (hold.feature_endpoint, hold.ai_model) == usage[1:3]
        if pinned:
            assert hold is not None
            priced_ms, prices = hold.priced_ms, hold.prices
        else:
            priced_ms = usage.occurred_ms
            prices = self._pricing.pin(usage.feature_endpoint, usage.ai_model, priced_ms)
        again = charge_at(prices, Tokens(*usage[3:7]))
        account = _Account(entry, usage, charge, priced_ms, prices)
        return pb.ExplainChargeResponse(
            usage=usage_message(entry, internal=principal.is_admin),
            transaction=credits_transaction(entry, self._pricing),
            versions=_versions(prices, priced_ms),
            steps=[
                pb.ExplanationStep(name=name, text=text, values=values)
                for name, text, values in account.steps(internal=principal.is_admin)
            ],
            recomputed_credits_micros=again.credits_micros,
            matches=again == charge,
        )

    async def _charged(
        self, request: pb.ExplainChargeRequest, principal: Principal
    ) -> tuple[Entry, Hold | None]:
        """The entry of the usage that is asked for, with the hold that it captured."""
        for entry_id in _candidates(request, principal):
            try:
                entry = await self._reader.entry(entry_id)
            except DomainError as error:
                if error.reason is not Reason.TRANSACTION_NOT_FOUND:
                    raise
                continue
            if entry.usage is None:
                continue
            hold = None
            if entry.hold_id is not None:
                hold = (await self._reader.hold(entry.hold_id)).change.hold
            # Whoever ended a hold (its time, an administrator), its use is its holder's.
            client_id = entry.cause.client_id if hold is None else hold.client_id
            own = principal.is_admin or client_id == principal.client_id
            if own and request.user_id in ("", str(entry.profile.user_id)):
                return entry, hold
        named = request.credits_usage_id or request.usage_key
        raise DomainError(Reason.USAGE_NOT_FOUND, f"no usage is {named!r}", {"id": named})


def _versions(prices: PinnedPrices, priced_ms: int) -> pb.PriceVersions:
    model, setting, profit, endpoint = prices.versions
    return pb.PriceVersions(
        ai_model_history_id=_text(model),
        billing_setting_history_id=_text(setting),
        credits_profit_history_id=_text(profit),
        feature_endpoint_history_id=_text(endpoint),
        priced_time=timestamp(priced_ms),
    )


_Step = tuple[str, str, dict[str, str]]


class _Account(NamedTuple):
    """All that a charge rests on."""

    entry: Entry
    usage: Usage
    charge: Charge
    priced_ms: int
    prices: PinnedPrices

    def steps(self, *, internal: bool) -> Iterator[_Step]:
        """From the event to the entry."""
        yield self._event()
        if self.usage.ai_model:
            if internal:
                yield from self._tokens()
                yield from self._margin()
            yield self._shares()
        if self.charge.endpoint_credits_micros:
            yield self._endpoint()
        yield self._total()
        yield from self._grants()
        yield self._balance()

    def _event(self) -> _Step:
        usage = self.usage
        used = " and ".join(name for name in (usage.feature_endpoint, usage.ai_model) if name)
        text = (
            f"On {iso(usage.occurred_ms)} the user used {used}; the prices in force at"
            f" {iso(self.priced_ms)} count."
        )
        return "event", text, {"usage_key": usage.usage_key, "used": used}

    def _tokens(self) -> Iterator[_Step]:
        usage, prices = self.usage, self.prices
        size = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        input_rate, output_rate, read_rate, write_rate = prices.rates[
            bisect_left(prices.bounds, size)
        ]
        for name, tokens, rate in (
            ("input_tokens", usage.input_tokens, input_rate),
            ("cache_read_tokens", usage.cache_read_tokens, read_rate),
            ("cache_write_tokens", usage.cache_write_tokens, write_rate),
            ("output_tokens", usage.output_tokens, output_rate),
        ):
            if tokens:
                text = (
                    f"{tokens:,} {name.replace('_', ' ')} at {_decimal(rate)} USD per million"
                    f" cost {_decimal(tokens * rate, MICROS * MICROS)} USD."
                )
                yield name, text, {"tokens": str(tokens), "price_micros": str(rate)}

    def _margin(self) -> Iterator[_Step]:
        charge = self.charge
        text = (
            f"1,000 credits cost {_decimal(charge.credit_price_micros)} USD, so the model's cost"
            f" is {_decimal(charge.cost_credits_micros)} credits, rounded down."
        )
        values = {
            "credit_price_micros": str(charge.credit_price_micros),
            "cost_credits_micros": str(charge.cost_credits_micros),
        }
        yield "credit_price", text, values
        margin = charge.profit_credits_micros - charge.endpoint_credits_micros
        percent = _decimal(charge.profit_ppm, PPM_PER_PERCENT)
        text = f"The margin of {percent} % adds {_decimal(margin)} credits."
        yield "margin", text, {"profit_ppm": str(charge.profit_ppm), "credits_micros": str(margin)}

    def _shares(self) -> _Step:
        charge = self.charge
        tokens = charge.input_credits_micros + charge.output_credits_micros
        text = (
            f"Together the tokens come to {_decimal(tokens)} credits, rounded up once:"
            f" {_decimal(charge.input_credits_micros)} for input and"
            f" {_decimal(charge.output_credits_micros)} for output."
        )
        values = {
            "input_credits_micros": str(charge.input_credits_micros),
            "output_credits_micros": str(charge.output_credits_micros),
        }
        return "rounding", text, values

    def _endpoint(self) -> _Step:
        micros = self.charge.endpoint_credits_micros
        text = f"The endpoint itself costs {_decimal(micros)} credits."
        return "endpoint", text, {"endpoint_credits_micros": str(micros)}

    def _total(self) -> _Step:
        micros = self.charge.credits_micros
        return (
            "total",
            f"In all that is {_decimal(micros)} credits.",
            {"credits_micros": str(micros)},
        )

    def _grants(self) -> Iterator[_Step]:
        for grant_id, micros in self.entry.movements:
            text = f"{_decimal(-micros)} credits were taken from grant {grant_id}."
            yield "grant", text, {"grant_id": str(grant_id), "credits_micros": str(micros)}
        if self.entry.shortfall_micros:
            short = self.entry.shortfall_micros
            text = f"{_decimal(short)} credits could not be taken: the wallet had no more."
            yield "shortfall", text, {"shortfall_micros": str(short)}

    def _balance(self) -> _Step:
        entry = self.entry
        text = (
            f"It is transaction {entry.sequence} of the wallet, and left a balance of"
            f" {_decimal(entry.balance_after_micros)} credits."
        )
        values = {
            "transaction_id": str(entry.id),
            "sequence": str(entry.sequence),
            "balance_after_micros": str(entry.balance_after_micros),
        }
        return "balance", text, values


def _candidates(request: pb.ExplainChargeRequest, principal: Principal) -> list[ObjectId]:
    """The ids under which the usage may be."""
    if request.credits_usage_id:
        return [parse_id("credits_usage_id", request.credits_usage_id)]
    if not request.usage_key:
        raise field_invalid("usage_key", "is required where there is no credits_usage_id")
    if not request.user_id:
        raise field_invalid("user_id", "is required with usage_key")
    client_id = request.client_id or principal.client_id
    found = [derived_id(client_id, request.user_id, request.usage_key)]
    hold_id = request.usage_key.removeprefix(HOLD_KEY_PREFIX)
    if hold_id != request.usage_key and ObjectId.is_valid(hold_id):
        found.append(capture_id(ObjectId(hold_id)))
    return found


def _decimal(amount: int, unit: int = MICROS) -> str:
    """An amount in units, exactly, as in "1,234.5"."""
    whole, rest = divmod(abs(amount), unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole:,}.{digits}" if digits else f"{sign}{whole:,}"


def _text(value: ObjectId | None) -> str:
    return "" if value is None else str(value)
