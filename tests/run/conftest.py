"""Servers as processes. Whatever a test starts is gone after it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.run.command import Command

NewCommand = Callable[..., Command]


@pytest.fixture
async def new_command(tmp_path: Path) -> AsyncIterator[NewCommand]:
    """Makes a command on `data` in the test's directory, or on another `data_dir`."""
    made: list[Command] = []

    def make(*arguments: str, data_dir: Path = tmp_path / "data", **settings: str) -> Command:
        command = Command(data_dir, tmp_path / f"stderr-{len(made)}", *arguments, **settings)
        made.append(command)
        return command

    yield make
    for command in made:
        await command.clean_up()
