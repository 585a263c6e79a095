"""What the commands of `zaaz` have in common: who is asked, with which key, and how they fail."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Final

import click
from click.exceptions import NoArgsIsHelpError
from rich.console import Console
from rich.text import Text

from zaaz_client.channel import is_loopback
from zaaz_client.client import ZaazClient
from zaaz_client.tls import Tls

DEFAULT_TARGET: Final = "127.0.0.1:50051"
DEFAULT_DATA_DIR: Final = "var"
KEY_FILE: Final = "admin.key"
"""Where a server that was started by `make run` keeps its key for local use."""

TLS_VARIABLES: Final = ("ZAAZ_CA", "ZAAZ_CLIENT_CERT", "ZAAZ_CLIENT_KEY")
"""Files: whom to trust, and who asks, where the server wants to know."""


class Failure(click.ClickException):
    """Why a command ends, told on stderr."""

    def show(self, file: IO[Any] | None = None) -> None:
        """In colours where stderr is a terminal."""
        told = Text.assemble(("Error:", "bold red"), " ", self.format_message())
        Console(file=file, stderr=True, highlight=False).print(told, soft_wrap=True)


class BadUsage(Failure):
    """Options, file or key are wrong."""

    exit_code = 2


class Unreachable(Failure):
    """No server, for longer than the caller has patience."""

    exit_code = 3


class Interrupted(Failure):
    """Ctrl-C."""

    exit_code = 130


class NotConfirmed(Failure):
    """A question was answered with no, or by the end of what there is to read."""

    exit_code = 1


class Commands(click.Group):
    """The group of all commands: however one of them ends, it is told here and in one way."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click's, but for how failures look and what Ctrl-C's exit code is."""
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(*args, standalone_mode=False, **extra)
        try:
            code = run(*args, standalone_mode=False, **extra)
        except NoArgsIsHelpError as error:  # its message is the help
            error.show()
            sys.exit(error.exit_code)
        except (click.ClickException, click.Abort) as error:
            failure = _as_failure(error)
            failure.show()
            sys.exit(failure.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def _as_failure(error: click.ClickException | click.Abort) -> Failure:
    match error:
        case Failure():
            return error
        case click.UsageError():
            return BadUsage(error.format_message() + _usage(error.ctx))
        case click.ClickException():
            return Failure(error.format_message())
    # Click says the same of Ctrl-C, of an answer that is no, and of no answer.
    if error.__cause__ is None and error.__context__ is not None:
        click.echo(err=True)  # after the question
    if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
        return Interrupted("Interrupted.")
    return NotConfirmed("Not confirmed: nothing was changed.")


def _usage(context: click.Context | None) -> str:
    if context is None:
        return ""
    return f"\n{context.get_usage()}\nSee `{context.command_path} --help`."


def api_key(given: str | None, target: str) -> str:
    """The key given, or that of the server on this machine. BadUsage."""
    if given:
        return given.strip()
    key_file = Path(os.environ.get("ZAAZ_DATA_DIR") or DEFAULT_DATA_DIR) / KEY_FILE
    if is_loopback(target):
        try:
            return key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            hint = f"{key_file} cannot be read ({error.__class__.__name__})"
    else:
        hint = f"{key_file} is only used for a server on this machine"
    raise BadUsage(f"No API key: set ZAAZ_API_KEY. {hint}.")


@asynccontextmanager
async def opened(target: str, key: str) -> AsyncIterator[ZaazClient]:
    """A client of the server there, with the certificates that the environment names. BadUsage."""
    tls = _tls()
    try:
        client = ZaazClient(target, key, tls=tls)
    except ValueError as error:
        raise BadUsage(f"The API key cannot be one: {error}.") from error
    try:
        await client.__aenter__()
    except (OSError, ValueError) as error:
        raise BadUsage(f"{', '.join(TLS_VARIABLES)}: {error}.") from error
    try:
        yield client
    finally:
        await client.close()


def _tls() -> Tls | None:
    roots, certificate, own_key = (os.environ.get(name) or None for name in TLS_VARIABLES)
    if not (roots or certificate or own_key):
        return None
    try:
        return Tls(roots=roots, certificate=certificate, key=own_key)
    except ValueError as error:
        raise BadUsage(f"{', '.join(TLS_VARIABLES[1:])}: {error}.") from error
