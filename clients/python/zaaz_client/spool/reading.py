"""Reads a spool's events without a stream: to look at them, or to send them by another writer."""

import logging
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from zaaz_client.spool.blocks import whole_blocks
from zaaz_client.spool.errors import SpoolDamaged, SpoolError
from zaaz_client.spool.files import Directory
from zaaz_client.spool.segments import Place, Segment, list_segments
from zaaz_client.wire import StreamEvent, decode_event

_log = logging.getLogger("zaaz_client")


def spooled_events(
    directory: str | PathLike[str], *, skip_damaged: bool = False
) -> Iterator[StreamEvent]:
    """The events in a spool's directory, oldest first. Changes nothing there. Blocking.

    Some of the first may have been acknowledged: sending them again bills
    nothing twice, since their usage_keys are known. `skip_damaged` logs what
    cannot be read and goes on behind it, rather than to raise SpoolDamaged.
    SpoolInUse while a stream has the directory.
    """
    opened = Directory(Path(directory))
    if not opened.path.is_dir():
        raise SpoolError(f"{opened.path} is no directory")
    opened.open()
    try:
        segments = list_segments(opened.path)
        for segment in segments:
            yield from map(decode_event, _events(segment, segment is segments[-1], skip_damaged))
    finally:
        opened.close()


def _events(segment: Segment, is_last: bool, skip_damaged: bool) -> Iterator[bytes]:
    place = Place(segment.first, 0)
    try:
        if is_last:
            segment.measure()
        while place.position < segment.end:
            events, place = segment.read(place)
            yield from events
    except SpoolDamaged as error:
        if not skip_damaged:
            raise
        _log.error("%s: some events behind it are lost", error)
        for block in whole_blocks(segment.rest(place.byte)):
            yield from block
