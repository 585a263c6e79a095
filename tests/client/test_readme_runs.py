"""What the SDK's README shows does what it says, against a real server."""

import asyncio
import dataclasses
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from zaaz_client import CreditProcessSettings, ZaazClient, spooled_events
from zaaz_client.credit_process import DEFAULT_PROCESS_SETTINGS

from tests.client.test_readme import EXAMPLES, TEXT
from tests.ledger.calls import soon
from tests.serving import Served, usage_event

CREDIT = 1_000_000
EXAMPLE_USER = "65f0000000000000000000aa"


def example(name: str) -> dict[str, Any]:
    """The definitions of the example that defines `name`."""
    (text,) = [text for text in EXAMPLES if f"def {name}(" in text]
    definitions: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), definitions)
    return definitions


@pytest.fixture
async def own(clocked: Served) -> AsyncIterator[ZaazClient]:
    """Of a server where nobody else has used the examples' user and ids."""
    async with ZaazClient(clocked.target, clocked.api_key) as client:
        yield client


def test_each_example_is_run() -> None:
    """By the one function of it that a test asks for, here or beside what it is about."""
    tests = [path.read_text() for path in Path(__file__).parent.rglob("test_*readme*.py")]
    asked = {name for test in tests for name in re.findall(r'example\("(\w+)"\)', test)}
    for text in EXAMPLES:
        defined = set(re.findall(r"def (\w+)\(", text))
        assert len(defined & (asked | {"main"})) == 1, f"nobody runs the example with {defined}"
    assert len(EXAMPLES) >= 10


def test_examples_are_right_by_mypy_strict(tmp_path: Path) -> None:
    for number, text in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(text)
    root = Path(__file__).parents[2]
    words = ["--strict", "--config-file", str(root / "pyproject.toml"), str(tmp_path)]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_first_call(clocked: Served) -> None:
    (text,) = [text for text in EXAMPLES if "async def main(" in text]
    assert "127.0.0.1:50051" in text
    code = text.replace("127.0.0.1:50051", clocked.target)
    env = {**os.environ, "ZAAZ_API_KEY": clocked.api_key}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=PIPE, stderr=PIPE, env=env
    )
    out, err = await soon(run.communicate())
    assert (run.returncode, err.decode()) == (0, "")
    assert out.decode() == "2.0 credits short\n"


async def test_credit_process(
    partner: ZaazClient, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = example("answer")["answer"]
    user_id = await served.new_wallet()
    assert await answer(partner, user_id, "What") == "0.54 credits are missing"
    await served.grant(user_id, CREDIT)
    assert await answer(partner, user_id, "What") == "What? Forty-two."
    spent = CREDIT - (await served.wallet(user_id)).credits_micros
    assert capsys.readouterr().out == f"it cost {spent / CREDIT} credits\n"
    assert 0 < spent < 540_000


async def test_retries(partner: ZaazClient, served: Served) -> None:
    charge = example("charge_download")["charge_download"]
    user_id = await served.new_wallet(CREDIT)
    for _ in range(2):
        assert await charge(partner, user_id, user_id) == CREDIT - 250_000


async def test_usage_stream(
    own: ZaazClient, clocked: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    bill = example("bill")["bill"]
    await soon(bill(own))
    assert "chat-81 WALLET_NOT_FOUND" in capsys.readouterr().out
    await clocked.new_wallet(CREDIT, EXAMPLE_USER)
    await soon(bill(own))
    assert "UsageCounters" in capsys.readouterr().out
    assert (await clocked.wallet(EXAMPLE_USER)).credits_micros < CREDIT


async def test_spool(
    partner: ZaazClient, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bill = example("bill_durably")["bill_durably"]
    user_id = await served.new_wallet(CREDIT)
    directory = tmp_path / user_id
    await soon(bill(partner, str(directory), [usage_event(user_id)]))
    assert "SpoolStatus" in capsys.readouterr().out
    assert list(spooled_events(directory)) == []
    assert (await served.wallet(user_id)).credits_micros == CREDIT - 540_000


async def test_watch(
    partner: ZaazClient, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    follow = example("follow")["follow"]
    user_id = await served.new_wallet(CREDIT)
    told: list[str] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(follow(partner, user_id, ""))
        while not told:
            await asyncio.sleep(0.02)
            told += capsys.readouterr().out.splitlines()
        await served.consume(user_id, 1)
        while len(told) < 2:
            await asyncio.sleep(0.02)
            told += capsys.readouterr().out.splitlines()
        task.cancel()
    assert told[0].strip() == f"is {CREDIT}"
    assert told[1] == f"is {CREDIT - 1} after transaction 2"


async def test_statement(
    partner: ZaazClient, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = example("save_statement")
    user_id = await served.new_wallet(CREDIT)
    file = tmp_path / "statement.csv"
    await shown["save_statement"](partner, user_id, file)
    assert await shown["check_statement"](partner, file)
    file.write_text(file.read_text().replace("1.000000", "9.000000"))
    assert not await shown["check_statement"](partner, file)
    assert "line" in capsys.readouterr().out


def test_every_setting_of_a_credit_process_is_told_with_its_default() -> None:
    for field in dataclasses.fields(CreditProcessSettings):
        (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{field.name}` ")]
        default = getattr(DEFAULT_PROCESS_SETTINGS, field.name)
        assert row.split("|")[2].strip() == f"{default:g}"
