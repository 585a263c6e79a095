"""`zaaz replay` as a process of its own, against a peer with books."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from zaaz.credits.v1.usage_service_pb2 import UsageEvent
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference
from zaaz_client.replay.trace import read_trace

from .bank import Bank, Books
from .peer import KEY, Do, Peer, script, status

TRACE = Path(__file__).parents[1] / "data" / "azure_llm_trace_conv.csv"
ZAAZ = Path(sys.executable).with_name("zaaz")
EVENTS = 300
USERS = 7


async def start(peer: Peer, *options: str, **environment: str) -> Process:
    words = ["replay", str(TRACE), "--users", str(USERS), "--events", str(EVENTS), *options]
    env = {**os.environ, "ZAAZ_TARGET": peer.target, "ZAAZ_API_KEY": KEY, **environment}
    return await asyncio.create_subprocess_exec(ZAAZ, *words, stdout=PIPE, stderr=PIPE, env=env)


async def finish(process: Process) -> tuple[int, str, str]:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


async def replay(peer: Peer, *options: str, **environment: str) -> tuple[int, str, str]:
    return await finish(await start(peer, *options, **environment))


def run_of(days_ago: int, fingerprint: str = "") -> str:
    anchor = datetime.now(UTC) - timedelta(days=days_ago)
    return f"{anchor:%Y%m%dT%H%M%SZ}-ab12cd{fingerprint}"


def sent(peer: Peer) -> list[UsageEvent]:
    """Of the one run that there was."""
    (writer,) = peer.writers.values()
    return writer.events


async def test_bills_the_trace_and_says_so(peer: Peer, bank: Bank) -> None:
    code, out, err = await replay(peer, "--json")
    report: dict[str, Any] = json.loads(out)
    assert code == 0, err
    assert report["ok"]
    assert report["events"] == {
        "sent": EVENTS,
        "acknowledged": EVENTS,
        "billed": EVENTS,
        "usages": EVENTS,
    }
    trace = read_trace(TRACE)
    tokens = sum(trace.input_tokens[:EVENTS]) + sum(trace.output_tokens[:EVENTS])
    credits_micros = report["credits_micros"]
    assert credits_micros["charged"] == credits_micros["decreased"] == tokens
    assert credits_micros["granted"] - credits_micros["balance"] == tokens
    assert len({event.usage_key for event in sent(peer)}) == EVENTS
    assert len({event.user_id for event in sent(peer)}) == USERS
    assert f"--run {report['run']}" in err


async def test_shows_a_table_without_json(peer: Peer, bank: Bank) -> None:
    code, out, err = await replay(peer)
    assert code == 0, err
    assert "every wallet agrees" in out
    assert "NO" not in out


async def test_continues_after_the_process_was_killed(peer: Peer, bank: Bank) -> None:
    killed = await start(peer, "--rate", "200")
    assert killed.stderr is not None
    first_line = (await killed.stderr.readline()).decode()
    run_id = first_line.split()[1].rstrip(".")
    await peer.wait_received(5)
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    assert 0 < len(sent(peer)) < EVENTS

    code, out, err = await replay(peer, "--run", run_id, "--json")
    report = json.loads(out)
    assert code == 0, err
    assert 0 < report["this_process"]["resumed_at"] < EVENTS
    assert len({event.usage_key for event in sent(peer)}) == len(sent(peer)) == EVENTS

    code, out, err = await replay(peer, "--run", run_id, "--json")
    assert (code, json.loads(out)["this_process"]["sent"]) == (0, 0), err
    assert len(sent(peer)) == EVENTS


async def test_survives_a_restart_of_the_server(peer: Peer, bank: Bank) -> None:
    running = asyncio.create_task(replay(peer, "--rate", "400", "--json"))
    await peer.wait_received(5)
    await peer.stop()
    await peer.start()
    code, out, err = await running
    assert code == 0, err
    assert json.loads(out)["this_process"]["reopened"] >= 1


async def test_tries_calls_again_that_fail(peer: Peer, bank: Bank) -> None:
    bank.failures_left = 5
    code, _, err = await replay(peer)
    assert code == 0, err


def lose_a_usage(books: Books) -> None:
    books.usages.pop()


def repeat_a_usage(books: Books) -> None:
    books.usages.append(books.usages[-1])


def change_a_usage(books: Books) -> None:
    books.usages[0].output_tokens += 1


def charge_a_micro(books: Books) -> None:
    books.usages[0].credits_micros += 1


def take_a_micro(books: Books) -> None:
    books.balance_micros -= 1


def find_a_difference(books: Books) -> None:
    books.differences.append(
        WalletDifference(sequence=3, field="chain", expected="aa", actual="bb")
    )


@pytest.mark.parametrize(
    "bend",
    [
        lose_a_usage,
        repeat_a_usage,
        change_a_usage,
        charge_a_micro,
        take_a_micro,
        find_a_difference,
    ],
)
async def test_notices_books_that_do_not_agree(
    peer: Peer, bank: Bank, bend: Callable[[Books], None]
) -> None:
    bank.bend = bend
    code, out, err = await replay(peer, "--json")
    report = json.loads(out)
    assert code == 1
    assert not report["ok"]
    assert report["difference_count"] >= USERS
    assert "does not add up" in err


async def test_wallets_that_run_dry_still_reconcile(peer: Peer, bank: Bank) -> None:
    def impoverish(books: Books) -> None:
        for usage, movement in zip(books.usages, books.transactions[1:], strict=True):
            usage.shortfall_micros += movement.credits_micros
            books.balance_micros += movement.credits_micros
            movement.credits_micros = 0

    bank.bend = impoverish
    code, out, err = await replay(peer, "--json")
    assert code == 0, err
    assert json.loads(out)["credits_micros"]["shortfall"] > 0


async def test_refused_events_fail_the_run_with_their_reason(peer: Peer, bank: Bank) -> None:
    run_id = run_of(days_ago=3)
    error = status(grpc.StatusCode.FAILED_PRECONDITION, "PRICE_NOT_FOUND")
    peer.refused = {f"{run_id}-11": error}
    code, _, err = await replay(peer, "--run", run_id)
    assert code == 1
    assert "PRICE_NOT_FOUND: 1 events" in err


async def test_a_revoked_key_is_a_matter_of_usage(peer: Peer, bank: Bank) -> None:
    peer.script = script([], then=Do.REVOKE)
    code, _, err = await replay(peer)
    assert code == 2
    assert "ZAAZ_API_KEY" in err


async def test_a_server_that_stays_away_is_told_with_how_to_continue(
    peer: Peer, bank: Bank
) -> None:
    running = asyncio.create_task(replay(peer, "--rate", "200", "--patience", "1"))
    await peer.wait_received(3)
    await peer.stop()
    code, _, err = await running
    assert code == 3
    assert "Is the server running" in err
    assert err.count("--run ") == 2


async def test_an_interrupt_tells_how_to_continue(peer: Peer, bank: Bank) -> None:
    process = await start(peer, "--rate", "100")
    await peer.wait_received(3)
    process.send_signal(signal.SIGINT)
    code, _, err = await finish(process)
    assert code == 130
    assert "To continue" in err


async def test_the_key_comes_from_the_data_directory(
    peer: Peer, bank: Bank, tmp_path: Path
) -> None:
    (tmp_path / "admin.key").write_text("zaaz_local_key\n")
    code, _, err = await replay(peer, ZAAZ_API_KEY="", ZAAZ_DATA_DIR=str(tmp_path))
    assert code == 0, err
    assert peer.metadata[-1]["authorization"] == "Bearer zaaz_local_key"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--users", "0"), "--users"),
        (("--model", "no model"), "--model"),
        (("--rate", "-1"), "--rate"),
        (("--run", "yesterday"), "no run id"),
        (("--run", run_of(days_ago=36)), "35 days"),
        (("--run", run_of(days_ago=-1)), "future"),
        (("--run", run_of(1, "-000000")), "another file"),
        (("--target", "example.com:443", "--api-key", ""), "ZAAZ_API_KEY"),
        (("--api-key", "a b"), "API key"),
    ],
)
async def test_wrong_options_are_named(peer: Peer, options: tuple[str, ...], said: str) -> None:
    code, out, err = await replay(peer, *options)
    assert (code, out) == (2, "")
    assert said in err


async def test_a_file_that_is_no_trace_is_refused_line_by_line(peer: Peer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2\n2023-11-16 18:15:46,1,-2\n")
    process = await asyncio.create_subprocess_exec(
        ZAAZ, "replay", str(bad), stdout=PIPE, stderr=PIPE
    )
    code, _, err = await finish(process)
    assert code == 2
    assert "bad.csv:2:" in err
    assert "bad.csv:3:" in err
