"""Changes that wait for their time: pure functions of a row and a moment.

A row's `scheduled` is [{effective_time, fields}], the soonest first; a field that will be unset is
None there.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bson.datetime_ms import DatetimeMS

from server.kernel.errors import field_invalid
from server.resources.model import MAX_SCHEDULED, Document


def fold(row: Document, moment: datetime | DatetimeMS) -> Document:
    """The row as it is at `moment`: what is due by then is in force, the rest still waits."""
    scheduled = row.get("scheduled")
    if not scheduled or scheduled[0]["effective_time"] > moment:
        return row
    folded = dict(row)
    for item in scheduled:
        if item["effective_time"] <= moment:
            _apply(folded, item["fields"])
    _keep(folded, [item for item in scheduled if item["effective_time"] > moment])
    return folded


def schedule(row: Document, moment: datetime, fields: Mapping[str, Any]) -> Document:
    """The row with `fields` waiting for `moment`, after what waits for the same moment already.

    FIELD_INVALID naming effective_time when MAX_SCHEDULED changes wait.
    """
    waiting = {item["effective_time"]: item["fields"] for item in row.get("scheduled", ())}
    waiting[moment] = {**waiting.get(moment, {}), **fields}
    if len(waiting) > MAX_SCHEDULED:
        raise field_invalid("effective_time", f"{MAX_SCHEDULED} changes wait for their time")
    changed = dict(row)
    _keep(changed, [{"effective_time": at, "fields": waiting[at]} for at in sorted(waiting)])
    return changed


def _apply(row: Document, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if value is None:
            row.pop(name, None)
        else:
            row[name] = value


def _keep(row: Document, scheduled: list[Document]) -> None:
    row.pop("scheduled", None)
    if scheduled:
        row["scheduled"] = scheduled
