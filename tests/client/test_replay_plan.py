"""The trace and what a run makes of it."""

from pathlib import Path

import pytest
from zaaz_client.replay.plan import (
    MAX_AGE_MS,
    REPEAT_GAP_MS,
    Parameters,
    Plan,
    PlanError,
    make_plan,
    new_run_id,
)
from zaaz_client.replay.trace import MAX_PROBLEMS, Trace, TraceError, parse_trace, read_trace

FILE = Path(__file__).parents[1] / "data" / "azure_llm_trace_conv.csv"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
NOW_MS = 1_795_000_000_000
THREE = (
    f"{HEADER}\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:47.0009999,0,109\r\n"
    "2023-11-16 18:15:50,879,55"
)


def parse(text: str) -> Trace:
    return parse_trace(text.splitlines(keepends=True), "t.csv")


def plan_of(events: int, users: int = 2, run_id: str | None = None) -> Plan:
    trace = parse(THREE)
    parameters = Parameters(users, "openai/gpt-4o-mini", events, 1_000_000)
    run_id = run_id or new_run_id(NOW_MS, "ab12cd", parameters, trace)
    return make_plan(run_id, trace, parameters, NOW_MS)


def test_the_real_trace_is_read_whole() -> None:
    trace = read_trace(FILE)
    assert len(trace) == 19_366
    assert (trace.input_tokens[0], trace.output_tokens[0]) == (374, 44)
    assert (trace.input_tokens[-1], trace.output_tokens[-1]) == (197, 183)
    assert trace.times_ms[-1] - trace.times_ms[0] == 3_501_722


def test_times_are_kept_to_the_millisecond() -> None:
    times = parse(THREE).times_ms
    assert [time_ms % 1000 for time_ms in times] == [680, 0, 0]
    assert times[2] - times[1] == 3_000


def test_line_ends_do_not_change_the_digest() -> None:
    assert parse(THREE).digest == parse(THREE.replace("\r\n", "\n") + "\n\n").digest


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("2023-11-16 18:15:46.68", "t.csv:2: expected 3 columns, found 1"),
        ("2023-11-16 18:15:46,1,2,3", "found 4"),
        ("yesterday,1,2", "TIMESTAMP 'yesterday'"),
        ("2023-02-30 18:15:46,1,2", "TIMESTAMP '2023-02-30"),
        ("2023-11-16 18:15:46,-1,2", "ContextTokens '-1'"),
        ("2023-11-16 18:15:46,1,2.5", "GeneratedTokens '2.5'"),
        ("2023-11-16 18:15:46,1,", "GeneratedTokens ''"),
        ("2023-11-16 18:15:46,\u0661,2", "ContextTokens"),
        ("2023-11-16 18:15:46,9999999999,2", "ContextTokens"),
    ],
)
def test_a_bad_row_is_named(row: str, said: str) -> None:
    with pytest.raises(TraceError) as raised:
        parse(f"{HEADER}\n{row}\n")
    assert said in raised.value.problems[0]
    assert raised.value.problems[0].startswith("t.csv:2: ")


def test_every_bad_row_is_named_up_to_a_bound() -> None:
    with pytest.raises(TraceError) as raised:
        parse(HEADER + "\nx,1,2" * 1_000)
    assert len(raised.value.problems) == MAX_PROBLEMS + 1
    assert raised.value.problems[3].startswith("t.csv:5: ")


@pytest.mark.parametrize("text", ["", "a,b,c\n1,2,3\n", HEADER + "\n"])
def test_a_file_without_a_trace_is_refused(text: str) -> None:
    with pytest.raises(TraceError):
        parse(text)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "t.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(TraceError, match="UTF-8"):
        read_trace(binary)


@pytest.mark.parametrize("events", [1, 2, 3, 4, 7, 300])
def test_the_last_event_is_at_the_anchor(events: int) -> None:
    plan = plan_of(events)
    times = [plan.time_ms(index) for index in range(events)]
    assert times[-1] == max(times) == NOW_MS
    assert times == sorted(times)


def test_a_repetition_follows_the_one_before() -> None:
    plan = plan_of(6)
    assert plan.time_ms(3) - plan.time_ms(2) == REPEAT_GAP_MS
    assert plan.time_ms(4) - plan.time_ms(3) == plan.time_ms(1) - plan.time_ms(0)


def test_a_run_is_a_function_of_its_id() -> None:
    one, same = plan_of(50), plan_of(50)
    assert [one.event(index) for index in range(50)] == [same.event(index) for index in range(50)]
    other = plan_of(50, run_id=one.run_id.replace("ab12cd", "ab12ce"))
    assert not set(one.user_ids) & set(other.user_ids)
    assert one.event(0).usage_key != other.event(0).usage_key


def test_users_take_turns_and_keys_lead_back() -> None:
    plan = plan_of(7, users=3)
    for user in range(3):
        for index in plan.indexes_of(user):
            event = plan.event(index)
            assert event.user_id == plan.user_ids[user]
            assert plan.index(event.usage_key) == index
    assert sorted(index for user in range(3) for index in plan.indexes_of(user)) == list(range(7))
    assert plan.index(f"{plan.run_id}-7") is None
    assert plan.index("other-run-3") is None
    assert plan.index(f"{plan.run_id}-x") is None


@pytest.mark.parametrize("changed", [{"users": 3}, {"events": 6}])
def test_another_runs_id_is_refused(changed: dict[str, int]) -> None:
    run_id = plan_of(5, users=2).run_id
    with pytest.raises(PlanError, match="another file"):
        plan_of(**{"events": 5, "users": 2, **changed}, run_id=run_id)


def test_events_that_servers_refuse_for_their_age_are_refused_here() -> None:
    per_event_ms = (plan_of(3).time_ms(2) - plan_of(3).time_ms(0) + REPEAT_GAP_MS) / 3
    fitting = int(MAX_AGE_MS / per_event_ms) - 10
    assert NOW_MS - plan_of(fitting).time_ms(0) <= MAX_AGE_MS
    with pytest.raises(PlanError, match="35 days"):
        plan_of(fitting + 20)


@pytest.mark.parametrize(
    "run_id", ["", "x", "20261340T000000Z-ab12cd", "20261120T000000Z-AB12CD", "20261120T000000Z"]
)
def test_what_is_no_run_id_is_refused(run_id: str) -> None:
    with pytest.raises(PlanError, match="no run id"):
        plan_of(3, run_id=run_id or "-")
