"""One figure that fails, in whatever way, takes nothing from the others."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from pymongo.errors import ServerSelectionTimeoutError

from bench import __main__ as program
from bench import results
from bench.failures import explain
from bench.processes import BenchError
from tests.bench.lines import a_figure, a_measure

Line = dict[str, Any]

RESULTS = f"# Figures\n\n{results.RUNS_MARK}\n### an older run\n"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are kept."""
    path = tmp_path / "RESULTS.md"
    path.write_text(RESULTS)
    monkeypatch.setattr(results, "RESULTS", path)
    monkeypatch.setattr(program, "describe", lambda: "a machine")
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    return path


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Has usage_40 fail so, and every other figure and measure succeed."""

    def arrange(error: BaseException) -> None:
        async def figure(one: Any, _plan: object) -> Line:
            if one.name == "usage_40":
                raise error
            return a_figure(one.name)

        async def measure(one: Any, _plan: object) -> Line:
            return a_measure(one.name)

        monkeypatch.setattr(program, "take_figure", figure)
        monkeypatch.setattr(program, "take_measure", measure)

    return arrange


def _unavailable() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "socket closed")


FAILURES = [
    pytest.param(BenchError("not billed"), "not billed", id="bench"),
    pytest.param(_unavailable(), "UNAVAILABLE: socket closed", id="rpc"),
    pytest.param(TimeoutError(), "TimeoutError", id="timeout"),
    pytest.param(
        ServerSelectionTimeoutError("none"), "ServerSelectionTimeoutError: none", id="pymongo"
    ),
    pytest.param(ExceptionGroup("callers", [KeyError("hold")]), "KeyError: 'hold'", id="group"),
]


@pytest.mark.parametrize(("error", "said"), FAILURES)
def test_others_are_taken_told_and_kept(
    error: Exception,
    said: str,
    kept: Path,
    fails: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fails(error)
    code = program.main(["usage_40", "usage_1000", "memory", "--write"])
    out, err = capsys.readouterr()
    assert code == 1
    assert [orjson.loads(line)["name"] for line in out.splitlines()] == ["usage_1000", "memory"]
    assert f"bench: usage_40 could not be taken: {said}" in err
    text = kept.read_text()
    assert f"- usage_40 could not be taken: {said}" in text
    assert "| usage_1000 |" in text
    assert "| memory " in text
    assert text.endswith("\n### an older run\n")


def test_all_that_is_well_is_no_failure(
    fails: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails(BenchError("not asked for"))
    assert program.main(["usage_1000"]) == 0
    assert "could not be taken" not in capsys.readouterr().err


def test_nothing_is_kept_where_nothing_was_taken(
    kept: Path, fails: Callable[[BaseException], None]
) -> None:
    fails(BenchError("no"))
    assert program.main(["usage_40", "--write"]) == 1
    assert kept.read_text() == RESULTS


def test_what_was_taken_before_an_interruption_is_kept(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(one: Any, _plan: object) -> Line:
        if one.name == "usage_1000":
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        return a_figure(one.name)

    monkeypatch.setattr(program, "take_figure", interrupted)
    assert program.main(["usage_40", "usage_1000", "--write"]) == 128 + signal.SIGTERM
    assert "| usage_40 " in kept.read_text()


def test_a_figure_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def never(*_: object) -> Line:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(program, "take_figure", never)
    monkeypatch.setattr(program, "LONGEST_SECONDS", 0.01)
    assert program.main(["usage_40"]) == 1
    assert "usage_40 could not be taken: TimeoutError" in capsys.readouterr().err


async def _fail(error: Exception) -> None:
    raise error


async def test_a_group_is_told_by_its_different_errors_and_with_its_notes() -> None:
    async def callers(tasks: list[Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)

    with pytest.raises(ExceptionGroup) as raised:
        await callers([_fail(BenchError("full")), _fail(BenchError("full")), _fail(OSError("off"))])
    raised.value.add_note("server.log is empty")
    assert explain(raised.value) == "full\nOSError: off\nserver.log is empty"


def test_an_unforeseen_error_is_told_with_its_place_in_the_bench() -> None:
    with pytest.raises(AttributeError) as raised:
        results.table(None)  # type: ignore[arg-type]  # what a mistake of ours would do
    assert "(results.py, line " in explain(raised.value)
