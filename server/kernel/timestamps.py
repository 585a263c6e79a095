"""Protobuf timestamps and the house's milliseconds."""

from google.protobuf.timestamp_pb2 import Timestamp

from server.kernel.errors import field_invalid

_MAX_SECONDS = 253_402_300_799
"""The end of the year 9999: beyond it, what MongoDB keeps the driver cannot read back."""

_NANOS_PER_MS = 1_000_000
_NANOS_PER_SECOND = 1_000_000_000


def timestamp(time_ms: int) -> Timestamp:
    """The same moment."""
    seconds, milliseconds = divmod(time_ms, 1_000)
    return Timestamp(seconds=seconds, nanos=milliseconds * _NANOS_PER_MS)


def put_time(into: Timestamp, time_ms: int) -> None:
    """Sets a message's own timestamp, still at zero, to that moment."""
    seconds, milliseconds = divmod(time_ms, 1_000)
    into.seconds = seconds
    into.nanos = milliseconds * _NANOS_PER_MS


def from_timestamp(moment: Timestamp) -> int:
    """Milliseconds since the epoch, rounded down, of a time whose range is checked elsewhere."""
    return moment.seconds * 1_000 + moment.nanos // _NANOS_PER_MS


def storable_time(field: str, moment: Timestamp) -> int:
    """The same for a time that will be stored; FIELD_INVALID naming `field` out of range."""
    if not (0 <= moment.seconds <= _MAX_SECONDS and 0 <= moment.nanos < _NANOS_PER_SECOND):
        raise field_invalid(field, "must be a time between 1970 and 9999")
    return from_timestamp(moment)
