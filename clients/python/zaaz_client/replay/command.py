"""`zaaz replay`."""

import asyncio
import json
import logging
import re
import secrets
import shlex
import time
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.logging import RichHandler

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    Refused,
    ask_with,
    for_programs,
    is_watched,
    to_target,
    with_key,
)
from zaaz_client.command.line import (
    DEFAULT_TARGET,
    BadUsage,
    Failure,
    Interrupted,
    api_key,
)
from zaaz_client.errors import Unavailable
from zaaz_client.replay.plan import Parameters, Plan, PlanError, make_plan, new_run_id
from zaaz_client.replay.report import ProgressDisplay, show_table
from zaaz_client.replay.report import as_json as report_as_json
from zaaz_client.replay.runner import FIRST_CONTACT_SECONDS, Outcome, run_plan
from zaaz_client.replay.trace import Trace, TraceError, read_trace

MAX_USERS: Final = 100_000
MAX_EVENTS: Final = 100_000_000
MAX_FUNDS: Final = 1_000_000_000
"""Credits per wallet; far from what int64 micro-credits hold."""

_MICROS: Final = 1_000_000
_MODEL: Final = re.compile(r"[!-~]{1,200}")
_SCOPES: Final = "admin, or with wallet.*, credits.* and usage.*"


def _check_model(_: click.Context, __: click.Parameter, model: str) -> str:
    if _MODEL.fullmatch(model) is None:
        raise click.BadParameter("must be like openai/gpt-4o-mini")
    return model


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--users",
    type=click.IntRange(1, MAX_USERS),
    default=40,
    show_default=True,
    help="Wallets that take turns.",
)
@click.option(
    "--model",
    callback=_check_model,
    default="openai/gpt-4o-mini",
    show_default=True,
    help="The model that is billed, as provider/model.",
)
@click.option(
    "--events",
    type=click.IntRange(1, MAX_EVENTS),
    help="Send so many; the trace is repeated or cut.  [default: once the whole trace]",
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events per second at most.")
@click.option("--run", "run_id", metavar="ID", help="Continue this run where it stopped.")
@click.option(
    "--fund",
    type=click.IntRange(1, MAX_FUNDS),
    default=1_000_000,
    show_default=True,
    help="Credits given to each wallet.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds that the server may be away.",
)
@to_target
@with_key
@for_programs
def replay(
    file: Path,
    users: int,
    model: str,
    events: int | None,
    rate: float | None,
    run_id: str | None,
    fund: int,
    patience: float,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Bill a trace of real LLM requests as usage, and prove it was billed exactly once.

    FILE is a CSV file with the columns TIMESTAMP, ContextTokens and
    GeneratedTokens. Its times are shifted so that it ends now.

    Exit codes: 0 all agrees; 1 something does not, or events were refused;
    2 wrong options, file or key; 3 the server cannot be reached; 130 interrupted.
    """
    console = Console(stderr=True)
    trace = _read(file)
    parameters = Parameters(users, model, events or len(trace), fund * _MICROS)
    plan = _plan(run_id, trace, parameters)
    key = api_key(given_key, target)
    resume = _resume_command(file, plan, target)
    click.echo(f"Run {plan.run_id}. To continue it if it stops:\n  {resume}", err=True)
    _log_to(console)

    async def work(client: ZaazClient) -> Outcome:
        return await _run(client, plan, rate, patience, console)

    try:
        outcome = ask_with(work, target, key, _SCOPES)
    except PlanError as error:
        raise BadUsage(str(error)) from error
    except Interrupted:
        raise Interrupted(f"Interrupted. To continue:\n  {resume}") from None
    except Failure as error:
        raise type(error)(f"{error.message}\nTo continue:\n  {resume}") from error
    if as_json:
        click.echo(json.dumps(report_as_json(outcome)))
    else:
        show_table(outcome, Console())
    _conclude(outcome)


async def _run(
    client: ZaazClient, plan: Plan, rate: float | None, patience: float, console: Console
) -> Outcome:
    try:
        async with asyncio.timeout(min(FIRST_CONTACT_SECONDS, patience)):
            await client.channel.channel_ready()
    except TimeoutError:
        raise Unavailable("nobody answers there") from None
    display = ProgressDisplay(console)
    return await run_plan(client, plan, display, rate=rate, patience_seconds=patience)


def _conclude(outcome: Outcome) -> None:
    if outcome.agrees:
        return
    lines = [f"{reason}: {count:,} events" for reason, count in outcome.delivery.refusals.items()]
    if outcome.delivery.first_refusal:
        lines.append(f"the first: {outcome.delivery.first_refusal}")
    lines += outcome.books.differences
    hidden = outcome.books.difference_count - len(outcome.books.differences)
    if hidden:
        lines.append(f"and {hidden:,} more differences")
    raise Refused("The run does not add up.\n  " + "\n  ".join(lines))


def _read(file: Path) -> Trace:
    try:
        return read_trace(file)
    except TraceError as error:
        raise BadUsage("The file is no trace.\n  " + "\n  ".join(error.problems)) from error
    except OSError as error:
        raise BadUsage(f"{file} cannot be read: {error.strerror}") from error


def _plan(run_id: str | None, trace: Trace, parameters: Parameters) -> Plan:
    now_ms = time.time_ns() // 1_000_000
    if run_id is None:
        run_id = new_run_id(now_ms, secrets.token_hex(3), parameters, trace)
    try:
        return make_plan(run_id, trace, parameters, now_ms)
    except PlanError as error:
        raise BadUsage(str(error)) from error


def _resume_command(file: Path, plan: Plan, target: str) -> str:
    wanted = plan.parameters
    words = ["zaaz", "replay", str(file), "--users", str(wanted.users), "--model", wanted.model]
    words += ["--events", str(wanted.events), "--fund", str(wanted.funds_micros // _MICROS)]
    if target != DEFAULT_TARGET:
        words += ["--target", target]
    return shlex.join([*words, "--run", plan.run_id])


def _log_to(console: Console) -> None:
    """The SDK's warnings, such as a lost connection, without breaking a progress bar."""
    handler: logging.Handler = logging.StreamHandler()
    if is_watched():
        handler = RichHandler(console=console, show_time=False, show_path=False)
    logger = logging.getLogger("zaaz_client")
    logger.handlers = [handler]
    logger.propagate = False
