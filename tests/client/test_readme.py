"""What the SDK's README shows is what the SDK has."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import zaaz_client
from zaaz_client import UsageStreamSettings
from zaaz_client.command.main import main
from zaaz_client.usage_settings import DEFAULT_SETTINGS

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
TEXT = README.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_compile_and_import(example: str) -> None:
    tree = ast.parse(example)
    imports: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    code = compile(ast.Module(imports, []), "README.md", "exec")
    exec(code, {})


def test_every_setting_is_told_with_its_default() -> None:
    for field in dataclasses.fields(UsageStreamSettings):
        (row,) = [line for line in TEXT.splitlines() if line.startswith("|") and field.name in line]
        default = getattr(DEFAULT_SETTINGS, field.name)
        told = {20_000: "20,000", 16 * 1024 * 1024: "16 MiB", None: "None"}.get(default)
        assert (told or f"{default:g}") in row, field.name


def test_every_error_that_is_named_exists() -> None:
    table = TEXT.partition("| Catch | When |\n")[2].partition("\n\n")[0]
    names = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert len(names) >= 7
    assert all(hasattr(zaaz_client, name) for name in names)


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, set[str]]]:
    """Each command by its words, and its options."""
    for name, command in group.commands.items():
        words = (*names, name)
        if isinstance(command, click.Group):
            yield from commands(command, *words)
        else:
            yield " ".join(words), {one for param in command.params for one in param.opts}


def test_commands_take_the_options_that_are_told_of_them() -> None:
    found = dict(commands(main))
    del found["completion"]
    without = {
        option: {name for name, options in found.items() if option not in options}
        for option in ("--target", "--api-key", "--json")
    }
    assert without == {
        "--target": set(),
        "--api-key": {"statement verify", "statement keys"},
        "--json": {"statement get"},
    }


def test_every_command_is_told_of() -> None:
    table = TEXT.partition("## The command zaaz\n")[2].partition("\n\nWhat asks")[0]
    for name, _ in commands(main):
        *_, last = name.split()
        assert last in table or name == "completion", name
