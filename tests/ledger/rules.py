"""Wallets and operations for tests of the pure rules."""

from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

from bson import ObjectId

from server.ledger.model import (
    NEVER_MS,
    Cause,
    Charge,
    Entry,
    Hold,
    IncreaseSource,
    OverdraftPolicy,
    PinnedPrices,
    Priced,
    Profile,
    Terms,
    Tokens,
    Usage,
    Wallet,
    new_wallet,
)
from server.ledger.operations import (
    AddGrant,
    CaptureHold,
    ChangeSettings,
    Consume,
    EndPackage,
    ExtendHold,
    PlaceHold,
    ReleaseHold,
    Reverse,
    SchedulePackage,
    StartPackage,
    Use,
)
from server.ledger.settlement import capture_id

NOW_MS = 1_750_000_000_000
USER = "65f0c0ffee65f0c0ffee65f0"
CLIENT = "tests"

_Value = TypeVar("_Value")


def empty_wallet(**profile: Any) -> Wallet:
    values = {"id": ObjectId(), "user_id": ObjectId(USER), "email": "a@example.com", **profile}
    return new_wallet(Profile(created_ms=NOW_MS, **values))


def some_terms(package: int, credits_micros: int, duration_ms: int) -> Terms:
    """Of a few packages: 0 and 1 paid subscriptions, 2 a free one; 3 credits, 4 free ones."""
    return Terms(
        ObjectId(f"{package:024x}"),
        ObjectId(),
        ObjectId(),
        ObjectId(),
        credits_micros,
        duration_ms,
        is_paid=package in (0, 1, 3),
        is_subscription=package < 3,
    )


def a_start(terms: Terms, **fields: Any) -> StartPackage:
    cause = Cause(CLIENT, "r", occurred_ms=NOW_MS)
    return StartPackage(ObjectId(), USER, terms, IncreaseSource.PAYMENT, cause, **fields)


def a_schedule(terms: Terms) -> SchedulePackage:
    return SchedulePackage(ObjectId(), USER, terms, Cause(CLIENT, "r", occurred_ms=NOW_MS))


def an_end(at_once: bool) -> EndPackage:
    return EndPackage(ObjectId(), USER, at_once, Cause(CLIENT, "r", occurred_ms=NOW_MS))


def a_grant(credits_micros: int, **fields: Any) -> AddGrant:
    values = {
        "id": ObjectId(),
        "source": IncreaseSource.BONUS,
        "priority": 0,
        "expires_ms": NEVER_MS,
        "cause": Cause(CLIENT, "r", "a reason", {"b": "2", "a": "1"}, NOW_MS),
        **fields,
    }
    return AddGrant(user_id=USER, credits_micros=credits_micros, **values)


def a_consumption(credits_micros: int) -> Consume:
    return Consume(ObjectId(), USER, credits_micros, Cause(CLIENT, "r", occurred_ms=NOW_MS))


def a_use(credits_micros: int, **usage: Any) -> Use:
    """A use at this price."""
    values = {
        "usage_key": str(ObjectId()),
        "feature_endpoint": "",
        "ai_model": "a/model",
        "input_tokens": 3,
        "output_tokens": 4,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "occurred_ms": NOW_MS,
        "labels": None,
        **usage,
    }
    return Use(ObjectId(), USER, CLIENT, Usage(**values), a_charge(credits_micros))


def a_charge(credits_micros: int) -> Charge:
    """A price split in some way that adds up."""
    input_micros, cost_micros = credits_micros // 3, credits_micros // 2
    return Charge(
        credits_micros,
        input_micros,
        credits_micros - input_micros,
        cost_micros,
        credits_micros - cost_micros,
        cost_micros,
        1_000_000,
        500_000,
    )


def priced(credits_micros: int) -> Priced:
    return Priced(Tokens(credits_micros % 97, 5), a_charge(credits_micros))


def a_hold(credits_micros: int, ttl_ms: int, **fields: Any) -> PlaceHold:
    hold = Hold(
        ObjectId(),
        CLIENT,
        priced(credits_micros),
        PRICES,
        expires_ms=0,
        priced_ms=NOW_MS,
        created_ms=0,
        ai_model="a/model",
        **fields,
    )
    return PlaceHold(USER, hold, ttl_ms, Cause(CLIENT, "r", occurred_ms=NOW_MS))


PRICES = PinnedPrices(
    (200_000,),
    ((1, 2, 3, 4), (5, 6, 7, 8)),
    1_000_000,
    200_000,
    7,
    (ObjectId(), None, ObjectId(), ObjectId()),
)


def an_extension(
    hold_id: ObjectId, credits_micros: int, ttl_ms: int, reported: int | None
) -> ExtendHold:
    said = None if reported is None else priced(reported)
    cause = Cause(CLIENT, "r", occurred_ms=NOW_MS)
    bound = priced(credits_micros)
    return ExtendHold(ObjectId(), USER, hold_id, ttl_ms, lambda _: bound, said, cause)


def a_capture(hold_id: ObjectId, credits_micros: int | None) -> CaptureHold:
    used = None if credits_micros is None else priced(credits_micros)
    cause = Cause(CLIENT, "r", occurred_ms=NOW_MS)
    return CaptureHold(capture_id(hold_id), USER, hold_id, used, cause)


def a_release(hold_id: ObjectId) -> ReleaseHold:
    cause = Cause(CLIENT, "r", occurred_ms=NOW_MS)
    return ReleaseHold(capture_id(hold_id), USER, hold_id, cause)


def a_reversal(original: Entry, entries: Iterable[Entry]) -> Reverse:
    """With the grants as they were made, as the ledger's service finds them."""
    moved = {movement.grant_id for movement in original.movements}
    grants = tuple(e.grant for e in entries if e.grant is not None and e.grant.id in moved)
    cause = Cause(CLIENT, "r", occurred_ms=NOW_MS, reverses_id=original.id)
    return Reverse(ObjectId(), USER, original, grants, cause)


def a_policy(policy: OverdraftPolicy) -> ChangeSettings:
    return ChangeSettings(USER, policy, None, None)


def finish(coroutine: Coroutine[Any, Any, _Value]) -> _Value:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: _Value = end.value
        return value
    raise AssertionError("it does wait for something")


async def streamed(entries: Iterable[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry
