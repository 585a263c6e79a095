"""Ledger values as messages of `zaaz.ledger.v1`."""

from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.ledger.v1 import (
    credits_transaction_pb2,
    credits_usage_pb2,
    grant_pb2,
    hold_pb2,
    wallet_pb2,
)

from server.kernel.timestamps import timestamp
from server.ledger.model import NEVER_MS, Entry, Grant, HoldState, Profile, Wallet
from server.ledger.posting import HoldChange


def _expiry(time_ms: int) -> Timestamp | None:
    return None if time_ms == NEVER_MS else timestamp(time_ms)


def grant_message(grant: Grant) -> grant_pb2.Grant:
    """A grant."""
    return grant_pb2.Grant(
        id=str(grant.id),
        source=grant_pb2.IncreaseSource.ValueType(grant.source),
        original_micros=grant.original_micros,
        remaining_micros=grant.remaining_micros,
        priority=grant.priority,
        expires_time=_expiry(grant.expires_ms),
        created_time=timestamp(grant.created_ms),
    )


def wallet_message(wallet: Wallet, now_ms: int) -> wallet_pb2.Wallet:
    """A wallet. `available_micros` is zero once the subscription has expired."""
    profile = wallet.profile
    expired = profile.expires_ms <= now_ms
    return wallet_pb2.Wallet(
        id=str(profile.id),
        user_id=str(profile.user_id),
        email=profile.email,
        package_id=_text(profile.package_id),
        plan_id=_text(profile.plan_id),
        credits_micros=wallet.credits_micros,
        held_micros=wallet.held_micros,
        available_micros=0 if expired else max(0, wallet.available_micros),
        debt_micros=wallet.debt_micros,
        expires_time=_expiry(profile.expires_ms),
        initial_credits_given=profile.initial_credits_given,
        initial_package_given=profile.initial_package_given,
        type=wallet_pb2.WalletType.ValueType(profile.type),
        is_deleted=profile.is_deleted,
        grants=[grant_message(grant) for grant in wallet.grants],
        sequence=wallet.sequence,
        chain=wallet.chain.hex(),
        overdraft_policy=wallet_pb2.OverdraftPolicy.ValueType(profile.overdraft_policy),
        low_balance_threshold_micros=profile.low_balance_threshold_micros,
        etag=str(profile.settings_version),
        created_time=timestamp(profile.created_ms),
        updated_time=timestamp(wallet.updated_ms),
        holds=[hold_message(profile, HoldChange(hold, HoldState.ACTIVE)) for hold in wallet.holds],
        subscription=_subscription(profile),
    )


def _subscription(profile: Profile) -> wallet_pb2.Subscription | None:
    subscription = profile.subscription
    if subscription is None:
        return None
    terms, following = subscription.terms, subscription.next
    return wallet_pb2.Subscription(
        id=str(subscription.id),
        package_id=str(terms.package_id),
        plan_id=str(terms.plan_id),
        package_plan_id=str(terms.package_plan_id),
        package_history_id=str(terms.package_history_id),
        start_time=timestamp(subscription.start_ms),
        expires_time=timestamp(profile.expires_ms),
        is_canceled=subscription.is_canceled,
        next_package_id=_text(following and following.package_id),
        next_plan_id=_text(following and following.plan_id),
        next_package_history_id=_text(following and following.package_history_id),
    )


def hold_message(profile: Profile, change: HoldChange) -> hold_pb2.Hold:
    """A hold with what became of it."""
    hold = change.hold
    return hold_pb2.Hold(
        id=str(hold.id),
        user_id=str(profile.user_id),
        user_wallet_id=str(profile.id),
        state=hold_pb2.HoldState.ValueType(change.state),
        held_micros=hold.held_micros,
        captured_micros=change.captured_micros,
        reported_micros=0 if hold.reported is None else hold.reported.charge.credits_micros,
        disconnect_policy=hold_pb2.DisconnectPolicy.ValueType(hold.policy),
        feature_endpoint=hold.feature_endpoint,
        ai_model=hold.ai_model,
        max_input_tokens=hold.bound.tokens.input,
        max_output_tokens=hold.bound.tokens.output,
        priced_time=timestamp(hold.priced_ms),
        expires_time=timestamp(hold.expires_ms),
        created_time=timestamp(hold.created_ms),
        ended_time=None if change.ended_by is None else timestamp(change.ended_ms),
        client_id=hold.client_id,
        ended_by_id=_text(change.ended_by),
        labels=hold.labels or {},
    )


def transaction_message(entry: Entry) -> credits_transaction_pb2.CreditsTransaction:
    """An entry."""
    profile, cause, usage = entry.profile, entry.cause, entry.usage
    types = credits_transaction_pb2
    grant, terms = entry.grant, entry.period and entry.period.terms
    return types.CreditsTransaction(
        id=str(entry.id),
        user_id=str(profile.user_id),
        email=profile.email,
        user_wallet_id=str(profile.id),
        type=types.TRANSACTION_TYPE_INCREASE if entry.source else types.TRANSACTION_TYPE_DECREASE,
        credits_micros=abs(entry.signed_micros),
        increase_source=grant_pb2.IncreaseSource.ValueType(entry.source),
        decrease_source=_text(cause.decrease_source),
        decrease_reason=types.DecreaseReason.ValueType(entry.decrease_reason),
        payment_transaction_id=_text(cause.payment_transaction_id),
        plan_id=_text(profile.plan_id),
        usage_key=usage.usage_key if usage else "",
        is_active=True,
        sequence=entry.sequence,
        balance_after_micros=entry.balance_after_micros,
        held_after_micros=entry.held_after_micros,
        debt_after_micros=entry.debt_after_micros,
        grant_movements=[
            grant_pb2.GrantMovement(grant_id=str(grant_id), credits_micros=micros)
            for grant_id, micros in entry.movements
        ],
        grant_priority=grant.priority if grant else 0,
        grant_expires_time=_expiry(grant.expires_ms) if grant else None,
        counter_account=entry.counter_account,
        chain=entry.chain.hex(),
        client_id=cause.client_id,
        request_id=cause.request_id,
        shortfall_micros=entry.shortfall_micros,
        reverses_id=_text(cause.reverses_id),
        reason=cause.reason,
        created_time=timestamp(entry.created_ms),
        occurred_time=timestamp(usage.occurred_ms if usage else cause.occurred_ms),
        labels=(usage.labels if usage else cause.labels) or {},
        hold_id=_text(entry.hold_id),
        held_change_micros=entry.held_change_micros,
        package_id=_text(terms and terms.package_id),
        package_history_id=_text(terms and terms.package_history_id),
    )


def usage_message(entry: Entry, *, internal: bool) -> credits_usage_pb2.CreditsUsage:
    """A usage entry as CreditsUsage; cost, profit and prices only where `internal`."""
    usage, charge = entry.usage, entry.charge
    if usage is None or charge is None:
        raise ValueError(f"entry {entry.id} is not of a usage event")
    message = credits_usage_pb2.CreditsUsage(
        id=str(entry.id),
        user_id=str(entry.profile.user_id),
        user_wallet_id=str(entry.profile.id),
        email=entry.profile.email,
        usage_key=usage.usage_key,
        credits_transaction_id=str(entry.id),
        feature_endpoint=usage.feature_endpoint,
        ai_model=usage.ai_model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        credits_micros=charge.credits_micros,
        input_credits_micros=charge.input_credits_micros,
        output_credits_micros=charge.output_credits_micros,
        endpoint_credits_micros=charge.endpoint_credits_micros,
        shortfall_micros=entry.shortfall_micros,
        is_active=True,
        sequence=entry.sequence,
        occurred_time=timestamp(usage.occurred_ms),
        created_time=timestamp(entry.created_ms),
        labels=usage.labels or {},
    )
    if internal:
        message.credit_price_micros = charge.credit_price_micros
        message.profit_ppm = charge.profit_ppm
        message.profit_credits_micros = charge.profit_credits_micros
        message.cost_credits_micros = charge.cost_credits_micros
        message.cost_price_micros = charge.cost_price_micros
    return message


def _text(value: object | None) -> str:
    return "" if value is None else str(value)
