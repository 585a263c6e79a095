"""May this be used, and what would it cost: every reason against it at once."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from server.credits.freshness import rests_on_books
from server.credits.pricing import Pricing, endpoint_not_found
from server.kernel.errors import DomainError, Reason, field_invalid
from server.ledger.holds import hold_refusals
from server.ledger.model import Priced, Tokens, Wallet, WalletType


class Question(NamedTuple):
    """A use that is asked for: of an endpoint, a model or both, with at most so many tokens."""

    feature_endpoint: str
    ai_model: str
    tokens: Tokens
    words: int = 0
    bypass_expiry: bool = False


class Estimate(NamedTuple):
    """What it comes to at most, by the prices in force at `priced_ms`."""

    priced: Priced
    priced_ms: int


class UsableEndpoint(Protocol):
    """An endpoint as far as it decides who may use it. Limits of 0: any number of words."""

    @property
    def is_active(self) -> bool:
        """It is switched on."""

    @property
    def inactive_feature(self) -> str:
        """The feature above it that is switched off; "": none is."""

    @property
    def max_words_free(self) -> int:
        """Of users who do not pay."""

    @property
    def max_words_paid(self) -> int:
        """Of users who do."""


FindEndpoint = Callable[[str], UsableEndpoint | None]
"""The live endpoint of a value."""

IsModelActive = Callable[[str], bool]
"""Whether a model, by its value, is switched on."""


class Entitlements:
    """What the catalog says to a question. What the wallet says comes from the ledger."""

    def __init__(
        self, pricing: Pricing, find_endpoint: FindEndpoint, is_model_active: IsModelActive
    ) -> None:
        self._pricing = pricing
        self._find_endpoint = find_endpoint
        self._is_model_active = is_model_active

    def estimate(self, question: Question, time_ms: int) -> Estimate:
        """FIELD_INVALID, FEATURE_ENDPOINT_NOT_FOUND, PRICE_NOT_FOUND, AMOUNT_OUT_OF_RANGE."""
        endpoint, ai_model, tokens, _, _ = question
        if not endpoint and not ai_model:
            raise field_invalid("ai_model", "is required where there is no feature_endpoint")
        charge = self._pricing.charge(endpoint, ai_model, *tokens, time_ms)
        return Estimate(Priced(tokens, charge), time_ms)

    def lets(self, question: Question, wallet: Wallet, time_ms: int) -> bool:
        """Whether nothing in the books is against it. FIELD_INVALID, AMOUNT_OUT_OF_RANGE."""
        try:
            self.estimate(question, time_ms)
            return not self.denials(question, wallet)
        except DomainError as error:
            if rests_on_books(error):
                return False
            raise

    def denials(self, question: Question, wallet: Wallet) -> tuple[DomainError, ...]:
        """Every reason of the catalog against a use. FEATURE_ENDPOINT_NOT_FOUND."""
        is_paid = wallet.profile.type == WalletType.PAID
        denials: list[DomainError] = []
        if question.feature_endpoint:
            endpoint = self._find_endpoint(question.feature_endpoint)
            if endpoint is None:
                raise endpoint_not_found(question.feature_endpoint)
            denials.extend(_of_endpoint(endpoint, question, is_paid))
        if question.ai_model and not self._is_model_active(question.ai_model):
            denials.append(
                _denial(
                    Reason.AI_MODEL_INACTIVE,
                    f"the model {question.ai_model} is switched off",
                    ai_model=question.ai_model,
                )
            )
        return tuple(denials)

    def all_denials(
        self, question: Question, wallet: Wallet, estimate: Estimate
    ) -> tuple[DomainError, ...]:
        """The same with the reasons of the wallet, which is as of the estimate's time."""
        price_micros = estimate.priced.charge.credits_micros
        funds = hold_refusals(
            wallet, price_micros, estimate.priced_ms, bypass_expiry=question.bypass_expiry
        )
        return (*self.denials(question, wallet), *funds)


def _of_endpoint(endpoint: UsableEndpoint, question: Question, is_paid: bool) -> list[DomainError]:
    denials: list[DomainError] = []
    value = question.feature_endpoint
    if not endpoint.is_active:
        text = f"the endpoint {value} is switched off"
        denials.append(_denial(Reason.FEATURE_ENDPOINT_INACTIVE, text, feature_endpoint=value))
    if endpoint.inactive_feature:
        feature = endpoint.inactive_feature
        text = f"the feature {feature} is switched off"
        denials.append(_denial(Reason.FEATURE_INACTIVE, text, feature=feature))
    tier = "paid" if is_paid else "free"
    limit = endpoint.max_words_paid if is_paid else endpoint.max_words_free
    if limit and question.words > limit:
        text = f"{question.words} words are more than the {limit} of the {tier} tier"
        denials.append(
            _denial(Reason.WORD_LIMIT_EXCEEDED, text, words=question.words, limit=limit, tier=tier)
        )
    return denials


def _denial(reason: Reason, message: str, **metadata: object) -> DomainError:
    return DomainError(reason, message, metadata)
