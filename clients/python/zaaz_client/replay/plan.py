"""What a run sends: a pure function of the trace, the run's id and its parameters.

So a run that was killed goes on exactly where it stopped when its id is given
again, whichever process does it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

from zaaz.credits.v1.usage_service_pb2 import UsageEvent

from zaaz_client.replay.trace import Trace

MAX_AGE_MS: Final = 35 * 86_400_000
"""Servers take no older events."""
MAX_AHEAD_MS: Final = 5 * 60_000
"""Nor such from further ahead."""
REPEAT_GAP_MS: Final = 1_000
"""Between two repetitions of a trace that is shorter than the run."""

_RUN_ID: Final = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{6}(?:-([0-9a-f]{6}))?", re.ASCII)
_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_USER_ID_BYTES: Final = 12
_FINGERPRINT_BYTES: Final = 3


class PlanError(ValueError):
    """The run cannot be done as asked; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the caller asks for. `funds_micros` goes to each wallet, in micro-credits."""

    users: int
    model: str
    events: int
    funds_micros: int

    def fingerprint(self, trace: Trace) -> str:
        """Six hex digits that tell another trace or other parameters."""
        text = f"{trace.digest}\0{self.users}\0{self.model}\0{self.events}\0{self.funds_micros}"
        return blake2b(text.encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


def new_run_id(now_ms: int, nonce: str, parameters: Parameters, trace: Trace) -> str:
    """An id as in 20261120T212306Z-ab12cd-0f9e8d: anchor time, nonce, fingerprint."""
    anchor = datetime.fromtimestamp(now_ms // 1000, UTC).strftime(_TIME_FORMAT)
    return f"{anchor}-{nonce}-{parameters.fingerprint(trace)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Events of one run by index, the wallets they are billed to, and their writer."""

    run_id: str
    trace: Trace
    parameters: Parameters
    user_ids: tuple[str, ...]
    shift_ms: int
    """From the time of the trace's first pass to the run's."""
    pass_ms: int
    """From one repetition of the trace to the next."""

    @property
    def writer_id(self) -> str:
        """The run's usage stream."""
        return f"replay-{self.run_id}"

    @property
    def events(self) -> int:
        """How many events the run has."""
        return self.parameters.events

    def request_id(self, step: str, user: int) -> str:
        """The request_id of a step for the user with this index."""
        return f"replay-{self.run_id}-{step}-{user}"

    def event(self, index: int) -> UsageEvent:
        """The event at `index`; users take turns."""
        trace, row = self.trace, index % len(self.trace)
        event = UsageEvent(
            usage_key=f"{self.run_id}-{index}",
            user_id=self.user_ids[index % len(self.user_ids)],
            ai_model=self.parameters.model,
            input_tokens=trace.input_tokens[row],
            output_tokens=trace.output_tokens[row],
        )
        event.occurred_time.FromMilliseconds(self.time_ms(index))
        return event

    def time_ms(self, index: int) -> int:
        """When the event at `index` is said to have happened."""
        repetition, row = divmod(index, len(self.trace))
        return self.trace.times_ms[row] + repetition * self.pass_ms + self.shift_ms

    def index(self, usage_key: str) -> int | None:
        """The index of the run's event with this key, None for any other key."""
        run_id, _, digits = usage_key.rpartition("-")
        if run_id != self.run_id or not digits.isdecimal() or int(digits) >= self.events:
            return None
        return int(digits)

    def indexes_of(self, user: int) -> range:
        """Which events are this user's."""
        return range(user, self.events, len(self.user_ids))


def make_plan(run_id: str, trace: Trace, parameters: Parameters, now_ms: int) -> Plan:
    """The plan of a run. PlanError when the id is another run's, or too old."""
    match = _RUN_ID.fullmatch(run_id)
    if match is None:
        raise PlanError(f"{run_id!r} is no run id; one looks like 20261120T212306Z-ab12cd-0f9e8d")
    anchor_ms = _anchor_ms(run_id, match[1])
    if match[2] and match[2] != parameters.fingerprint(trace):
        raise PlanError(
            f"run {run_id} was started with another file, --users, --model, --events or --fund:"
            " give the same ones to continue it, or leave --run out to start a new one"
        )
    pass_ms, span_ms, end_ms = _measure(trace, parameters.events)
    if anchor_ms > now_ms + MAX_AHEAD_MS:
        raise PlanError(f"run {run_id} lies in the future by this machine's clock")
    if now_ms - (anchor_ms - span_ms) > MAX_AGE_MS:
        raise PlanError(
            f"the first event of run {run_id} would be more than 35 days old, which servers"
            " refuse: use fewer --events, or leave --run out to start a new run"
        )
    user_ids = tuple(_user_id(run_id, user) for user in range(parameters.users))
    return Plan(run_id, trace, parameters, user_ids, anchor_ms - end_ms, pass_ms)


def _anchor_ms(run_id: str, text: str) -> int:
    try:
        anchor = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise PlanError(f"{run_id!r} is no run id: {text} is no time") from error
    return int(anchor.timestamp()) * 1000


def _measure(trace: Trace, events: int) -> tuple[int, int, int]:
    """Length of a repetition, of the whole run, and the end in the trace's own time."""
    first, last = min(trace.times_ms), max(trace.times_ms)
    pass_ms = last - first + REPEAT_GAP_MS
    full, rest = divmod(events, len(trace))
    ends = [last + (full - 1) * pass_ms] if full else []
    if rest:
        ends.append(max(trace.times_ms[:rest]) + full * pass_ms)
    return pass_ms, max(ends) - first, max(ends)


def _user_id(run_id: str, user: int) -> str:
    return blake2b(f"{run_id}\0{user}".encode(), digest_size=_USER_ID_BYTES).hexdigest()
