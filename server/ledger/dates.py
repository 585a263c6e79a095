"""Moments as BSON dates: milliseconds since the epoch, UTC, in both directions."""

from datetime import UTC, datetime

from bson.datetime_ms import DatetimeMS

_EPOCH = datetime.fromtimestamp(0, UTC)


def date(time_ms: int) -> DatetimeMS:
    """A BSON date."""
    return DatetimeMS(time_ms)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since the epoch, exactly."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000 + delta.microseconds // 1_000
