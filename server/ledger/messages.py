"""Ledger values as messages of `zaaz.ledger.v1`.

Each function fills `into`, a part of an answer, or a message of its own. A message that is
handed to another's constructor is copied whole: of an answer's time that was two thirds.
"""

from zaaz.ledger.v1 import grant_pb2, hold_pb2, wallet_pb2
from zaaz.ledger.v1.credits_transaction_pb2 import (
    TRANSACTION_TYPE_DECREASE,
    TRANSACTION_TYPE_INCREASE,
    CreditsTransaction,
    DecreaseReason,
)
from zaaz.ledger.v1.credits_usage_pb2 import CreditsUsage

from server.kernel.timestamps import put_time
from server.ledger.model import (
    NEVER_MS,
    Cause,
    Entry,
    Grant,
    HoldState,
    Profile,
    Subscription,
    Wallet,
)
from server.ledger.posting import HoldChange


def grant_message(grant: Grant, into: grant_pb2.Grant | None = None) -> grant_pb2.Grant:
    """A grant."""
    message = grant_pb2.Grant() if into is None else into
    message.id = str(grant.id)
    message.source = grant_pb2.IncreaseSource.ValueType(grant.source)
    message.original_micros = grant.original_micros
    message.remaining_micros = grant.remaining_micros
    message.priority = grant.priority
    if grant.expires_ms != NEVER_MS:
        put_time(message.expires_time, grant.expires_ms)
    put_time(message.created_time, grant.created_ms)
    return message


def wallet_message(
    wallet: Wallet, now_ms: int, into: wallet_pb2.Wallet | None = None
) -> wallet_pb2.Wallet:
    """A wallet. `available_micros` is zero once the subscription has expired."""
    message = wallet_pb2.Wallet() if into is None else into
    profile = wallet.profile
    _put_profile(message, profile)
    message.credits_micros = wallet.credits_micros
    message.held_micros = wallet.held_micros
    if profile.expires_ms > now_ms:
        message.available_micros = max(0, wallet.available_micros)
    message.debt_micros = wallet.debt_micros
    message.sequence = wallet.sequence
    message.chain = wallet.chain.hex()
    put_time(message.updated_time, wallet.updated_ms)
    for grant in wallet.grants:
        grant_message(grant, message.grants.add())
    for hold in wallet.holds:
        hold_message(profile, HoldChange(hold, HoldState.ACTIVE), message.holds.add())
    return message


def _put_profile(message: wallet_pb2.Wallet, profile: Profile) -> None:
    message.id = str(profile.id)
    message.user_id = str(profile.user_id)
    message.email = profile.email
    if profile.package_id is not None:
        message.package_id = str(profile.package_id)
    if profile.plan_id is not None:
        message.plan_id = str(profile.plan_id)
    if profile.expires_ms != NEVER_MS:
        put_time(message.expires_time, profile.expires_ms)
    message.initial_credits_given = profile.initial_credits_given
    message.initial_package_given = profile.initial_package_given
    message.type = wallet_pb2.WalletType.ValueType(profile.type)
    message.is_deleted = profile.is_deleted
    message.overdraft_policy = wallet_pb2.OverdraftPolicy.ValueType(profile.overdraft_policy)
    message.low_balance_threshold_micros = profile.low_balance_threshold_micros
    message.etag = str(profile.settings_version)
    put_time(message.created_time, profile.created_ms)
    if profile.subscription is not None:
        _put_subscription(message.subscription, profile.subscription, profile.expires_ms)


def _put_subscription(
    message: wallet_pb2.Subscription, subscription: Subscription, expires_ms: int
) -> None:
    terms, following = subscription.terms, subscription.next
    message.id = str(subscription.id)
    message.package_id = str(terms.package_id)
    message.plan_id = str(terms.plan_id)
    message.package_plan_id = str(terms.package_plan_id)
    message.package_history_id = str(terms.package_history_id)
    put_time(message.start_time, subscription.start_ms)
    put_time(message.expires_time, expires_ms)
    message.is_canceled = subscription.is_canceled
    if following is not None:
        message.next_package_id = str(following.package_id)
        message.next_plan_id = str(following.plan_id)
        message.next_package_history_id = str(following.package_history_id)


def hold_message(
    profile: Profile, change: HoldChange, into: hold_pb2.Hold | None = None
) -> hold_pb2.Hold:
    """A hold with what became of it."""
    message, hold = hold_pb2.Hold() if into is None else into, change.hold
    message.id = str(hold.id)
    message.user_id = str(profile.user_id)
    message.user_wallet_id = str(profile.id)
    message.state = hold_pb2.HoldState.ValueType(change.state)
    message.held_micros = hold.held_micros
    message.captured_micros = change.captured_micros
    if hold.reported is not None:
        message.reported_micros = hold.reported.charge.credits_micros
    message.disconnect_policy = hold_pb2.DisconnectPolicy.ValueType(hold.policy)
    message.feature_endpoint = hold.feature_endpoint
    message.ai_model = hold.ai_model
    message.max_input_tokens = hold.bound.tokens.input
    message.max_output_tokens = hold.bound.tokens.output
    put_time(message.priced_time, hold.priced_ms)
    put_time(message.expires_time, hold.expires_ms)
    put_time(message.created_time, hold.created_ms)
    if change.ended_by is not None:
        message.ended_by_id = str(change.ended_by)
        put_time(message.ended_time, change.ended_ms)
    message.client_id = hold.client_id
    if hold.labels:
        message.labels.update(hold.labels)
    return message


def transaction_message(entry: Entry, into: CreditsTransaction | None = None) -> CreditsTransaction:
    """An entry."""
    message = CreditsTransaction() if into is None else into
    profile, usage = entry.profile, entry.usage
    message.id = str(entry.id)
    message.user_id = str(profile.user_id)
    message.email = profile.email
    message.user_wallet_id = str(profile.id)
    message.type = TRANSACTION_TYPE_INCREASE if entry.source else TRANSACTION_TYPE_DECREASE
    message.credits_micros = abs(entry.signed_micros)
    message.increase_source = grant_pb2.IncreaseSource.ValueType(entry.source)
    message.decrease_reason = DecreaseReason.ValueType(entry.decrease_reason)
    if profile.plan_id is not None:
        message.plan_id = str(profile.plan_id)
    message.is_active = True
    message.sequence = entry.sequence
    message.balance_after_micros = entry.balance_after_micros
    message.held_after_micros = entry.held_after_micros
    message.debt_after_micros = entry.debt_after_micros
    message.shortfall_micros = entry.shortfall_micros
    for grant_id, micros in entry.movements:
        message.grant_movements.add(grant_id=str(grant_id), credits_micros=micros)
    message.counter_account = entry.counter_account
    message.chain = entry.chain.hex()
    put_time(message.created_time, entry.created_ms)
    _put_cause(message, entry.cause)
    if usage is not None:
        message.usage_key = usage.usage_key
        put_time(message.occurred_time, usage.occurred_ms)
        if usage.labels:
            message.labels.update(usage.labels)
    else:
        put_time(message.occurred_time, entry.cause.occurred_ms)
        if entry.cause.labels:
            message.labels.update(entry.cause.labels)
    _put_seldom(message, entry)
    return message


def _put_cause(message: CreditsTransaction, cause: Cause) -> None:
    message.client_id = cause.client_id
    message.request_id = cause.request_id
    message.reason = cause.reason
    if cause.decrease_source is not None:
        message.decrease_source = str(cause.decrease_source)
    if cause.payment_transaction_id is not None:
        message.payment_transaction_id = str(cause.payment_transaction_id)
    if cause.reverses_id is not None:
        message.reverses_id = str(cause.reverses_id)


def _put_seldom(message: CreditsTransaction, entry: Entry) -> None:
    """What most entries have not: a grant, a hold, a package's period."""
    if entry.grant is not None:
        message.grant_priority = entry.grant.priority
        if entry.grant.expires_ms != NEVER_MS:
            put_time(message.grant_expires_time, entry.grant.expires_ms)
    if entry.hold_id is not None:
        message.hold_id = str(entry.hold_id)
        message.held_change_micros = entry.held_change_micros
    if entry.period is not None:
        message.package_id = str(entry.period.terms.package_id)
        message.package_history_id = str(entry.period.terms.package_history_id)


def usage_message(
    entry: Entry, into: CreditsUsage | None = None, *, internal: bool
) -> CreditsUsage:
    """A usage entry as CreditsUsage; cost, profit and prices only where `internal`."""
    usage, charge = entry.usage, entry.charge
    if usage is None or charge is None:
        raise ValueError(f"entry {entry.id} is not of a usage event")
    message = CreditsUsage() if into is None else into
    message.id = str(entry.id)
    message.user_id = str(entry.profile.user_id)
    message.user_wallet_id = str(entry.profile.id)
    message.email = entry.profile.email
    message.usage_key = usage.usage_key
    message.credits_transaction_id = str(entry.id)
    message.feature_endpoint = usage.feature_endpoint
    message.ai_model = usage.ai_model
    message.input_tokens = usage.input_tokens
    message.output_tokens = usage.output_tokens
    message.cache_read_tokens = usage.cache_read_tokens
    message.cache_write_tokens = usage.cache_write_tokens
    message.credits_micros = charge.credits_micros
    message.input_credits_micros = charge.input_credits_micros
    message.output_credits_micros = charge.output_credits_micros
    message.endpoint_credits_micros = charge.endpoint_credits_micros
    message.shortfall_micros = entry.shortfall_micros
    message.is_active = True
    message.sequence = entry.sequence
    put_time(message.occurred_time, usage.occurred_ms)
    put_time(message.created_time, entry.created_ms)
    if usage.labels:
        message.labels.update(usage.labels)
    if internal:
        message.credit_price_micros = charge.credit_price_micros
        message.profit_ppm = charge.profit_ppm
        message.profit_credits_micros = charge.profit_credits_micros
        message.cost_credits_micros = charge.cost_credits_micros
        message.cost_price_micros = charge.cost_price_micros
    return message
