"""May this be used, and what would it cost: every reason against it at once."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from bson import ObjectId

from server.credits.freshness import rests_on_books
from server.credits.pricing import Pricing, endpoint_not_found
from server.kernel.errors import DomainError, Reason, field_invalid
from server.ledger.holds import hold_refusals
from server.ledger.model import Priced, Profile, Tokens, Wallet, WalletType


class Question(NamedTuple):
    """A use that is asked for: of an endpoint, a model or both, with at most so many tokens.

    `bypass_expiry`: a wallet whose subscription has expired may pass.
    """

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

    @property
    def feature(self) -> str:
        """The value of its feature."""

    @property
    def lineage(self) -> frozenset[ObjectId]:
        """Its feature and those above it."""

    @property
    def is_packaged(self) -> bool:
        """A package that is sold has one of them."""


Included = frozenset[ObjectId]
"""The features of a package as it was sold."""

NOTHING: Included = frozenset()


class SoldPackages(Protocol):
    """The port to the catalog: what a package had in it, by the snapshot it was sold under."""

    def find(self, history_id: ObjectId) -> Included | None:
        """None: it has to be loaded."""

    async def load(self, history_id: ObjectId) -> Included:
        """Nothing where there is no such snapshot. DatabaseUnavailable."""


FindEndpoint = Callable[[str], UsableEndpoint | None]
"""The live endpoint of a value."""

IsModelActive = Callable[[str], bool]
"""Whether a model, by its value, is switched on."""


class Entitlements:
    """What the catalog says to a question. What the wallet says comes from the ledger."""

    def __init__(
        self,
        pricing: Pricing,
        find_endpoint: FindEndpoint,
        is_model_active: IsModelActive,
        packages: SoldPackages,
    ) -> None:
        self._pricing = pricing
        self._find_endpoint = find_endpoint
        self._is_model_active = is_model_active
        self._packages = packages

    def included(self, question: Question, wallet: Wallet) -> Included | None:
        """What the wallet's package includes, if that is of the question. None: `load` it."""
        history_id = wallet.profile.package_history_id
        if history_id is None or not question.feature_endpoint:
            return NOTHING
        return self._packages.find(history_id)

    async def load(self, question: Question, wallet: Wallet) -> Included:
        """The same, read if need be. DatabaseUnavailable."""
        included, history_id = self.included(question, wallet), wallet.profile.package_history_id
        if included is not None or history_id is None:
            return included or NOTHING
        return await self._packages.load(history_id)

    def estimate(self, question: Question, time_ms: int) -> Estimate:
        """FIELD_INVALID, FEATURE_ENDPOINT_NOT_FOUND, PRICE_NOT_FOUND, AMOUNT_OUT_OF_RANGE."""
        endpoint, ai_model, tokens = question[:3]
        if not endpoint and not ai_model:
            raise field_invalid("ai_model", "is required where there is no feature_endpoint")
        charge = self._pricing.charge(endpoint, ai_model, *tokens, time_ms)
        return Estimate(Priced(tokens, charge), time_ms)

    def lets(self, question: Question, wallet: Wallet, included: Included, time_ms: int) -> bool:
        """Whether nothing in the books is against it. FIELD_INVALID, AMOUNT_OUT_OF_RANGE."""
        try:
            self.estimate(question, time_ms)
            return not self.denials(question, wallet, included)
        except DomainError as error:
            if rests_on_books(error):
                return False
            raise

    def denials(
        self, question: Question, wallet: Wallet, included: Included
    ) -> tuple[DomainError, ...]:
        """Every reason of the catalog against a use. FEATURE_ENDPOINT_NOT_FOUND."""
        denials: list[DomainError] = []
        if question.feature_endpoint:
            endpoint = self._find_endpoint(question.feature_endpoint)
            if endpoint is None:
                raise endpoint_not_found(question.feature_endpoint)
            profile = wallet.profile
            denials.extend(_of_endpoint(endpoint, question, profile.type == WalletType.PAID))
            if not _includes(profile, included, endpoint):
                denials.append(_not_included(endpoint, profile))
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
        self, question: Question, wallet: Wallet, included: Included, estimate: Estimate
    ) -> tuple[DomainError, ...]:
        """The same with the reasons of the wallet, which is as of the estimate's time."""
        price_micros = estimate.priced.charge.credits_micros
        funds = hold_refusals(
            wallet, price_micros, estimate.priced_ms, bypass_expiry=question.bypass_expiry
        )
        return (*self.denials(question, wallet, included), *funds)


def _includes(profile: Profile, included: Included, endpoint: UsableEndpoint) -> bool:
    """Whether the package lets its owner use it.

    Who has none may use what no package has; who buys credits alone may not do less than before,
    nor when their time is over.
    """
    if profile.package_history_id is None or (not included and not _subscribes(profile)):
        return not endpoint.is_packaged
    return not included.isdisjoint(endpoint.lineage)


def _subscribes(profile: Profile) -> bool:
    subscription = profile.subscription
    return subscription is not None and subscription.terms.is_subscription


def _not_included(endpoint: UsableEndpoint, profile: Profile) -> DomainError:
    text = f"the user has no package that includes the feature {endpoint.feature}"
    package_id = profile.package_id or ""
    return _denial(
        Reason.FEATURE_NOT_INCLUDED, text, feature=endpoint.feature, package_id=package_id
    )


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
