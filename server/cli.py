"""`python -m server`: run, create-key, seed."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine, Sequence

import orjson
import uvloop

from server.app import opened_database, running
from server.auth.model import SCOPES
from server.auth.service import AuthService
from server.config import Settings, SettingsError
from server.credits.prices.seeding import seed
from server.credits.prices.store import PriceStore
from server.kernel.clock import system_clock
from server.kernel.errors import DomainError
from server.mongo.errors import DatabaseUnavailable, EmbeddedMongodFailed, IndexConflict
from server.rest import rest_beside
from server.rpc.logs import EventLog, configure_logging
from server.rpc.server import CannotServeError

EXIT_FAILED = 1
EXIT_SETTINGS = 2
COLLECTOR_THRESHOLD = 100_000
"""New objects between two walks of the youngest generation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code. 2: the settings or the command line are wrong."""
    asked = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        return _complain(str(error), EXIT_SETTINGS)
    logs = configure_logging(settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_command(asked, settings, logs))
    except (CannotServeError, EmbeddedMongodFailed, IndexConflict, OSError) as error:
        return _complain(str(error), EXIT_FAILED)
    except DatabaseUnavailable as error:
        return _complain(f"ZAAZ_MONGO_URL: the database cannot be reached: {error}", EXIT_FAILED)
    except DomainError as error:
        return _complain(error.message, EXIT_FAILED)
    finally:
        logs.flush()


def _command(
    asked: argparse.Namespace, settings: Settings, logs: EventLog
) -> Coroutine[None, None, int]:
    if asked.command == "create-key":
        return _create_key(settings, asked.client_id, asked.scope, asked.name)
    if asked.command == "seed":
        return _seed(settings)
    return _run(settings, logs)


async def _run(settings: Settings, logs: EventLog) -> int:
    """Serves until SIGINT or SIGTERM. Its one line on stdout says that it does."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, logs) as served, rest_beside(settings, served.address) as rest:
        _calm_collector()
        ready = {"ready": True, "grpc": str(served.address), "rest": rest}
        data_dir = str(settings.data_dir.resolve())
        _say({**ready, "api_key": served.api_key, "data_dir": data_dir})
        waits = {
            asyncio.create_task(stop.wait()),
            asyncio.create_task(served.background.failed.wait()),
        }
        _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
    return EXIT_FAILED if served.background.failed.is_set() else 0


def _calm_collector() -> None:
    """Next to nothing here makes cycles, and the collector's walks cost a third of the stream.

    What start-up made is never looked at again; the rest a hundred times less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTOR_THRESHOLD, 50, 100)


async def _create_key(settings: Settings, client_id: str, scopes: list[str], name: str) -> int:
    async with opened_database(settings) as (completed, database):
        auth = AuthService(database, completed.secret)
        created = await auth.create_first_key(client_id, tuple(scopes), name)
    _say({"id": str(created.api_key.id), "client_id": client_id, "api_key": created.key})
    return 0


async def _seed(settings: Settings) -> int:
    async with opened_database(settings) as (_, database):
        report = await seed(PriceStore(database), system_clock)
    _say(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server", description="The zaaz server. Settings: see .env.example."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="serve until SIGTERM")
    create = commands.add_parser("create-key", help="make an API key on the database that is set")
    create.add_argument("--client-id", required=True, help="whose key: lowercase, digits, dashes")
    create.add_argument("--scope", action="append", required=True, choices=sorted(SCOPES))
    create.add_argument("--name", default="", help="what a person calls it")
    commands.add_parser("seed", help="set the first prices, credit price and margin, where missing")
    return parser


def _say(answer: object) -> None:
    sys.stdout.write(orjson.dumps(answer).decode() + "\n")
    sys.stdout.flush()


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"zaaz: {text}\n")
    return code
