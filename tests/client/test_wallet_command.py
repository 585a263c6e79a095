"""`zaaz wallet` as a process of its own, against a real server."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from tests.ledger.calls import soon
from tests.run.command import free_port
from tests.serving import Served, new_user

ZAAZ = Path(sys.executable).with_name("zaaz")
CREDITS = 5_000_000


async def start(served: Served, *words: str, **environment: str) -> Process:
    env = {**os.environ, "ZAAZ_TARGET": served.target, "ZAAZ_API_KEY": served.api_key}
    env |= environment
    return await asyncio.create_subprocess_exec(
        ZAAZ, "wallet", *words, stdout=PIPE, stderr=PIPE, env=env
    )


async def finish(process: Process) -> tuple[int | None, str, str]:
    out, err = await soon(process.communicate())
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


async def run(served: Served, *words: str, **environment: str) -> tuple[int | None, str, str]:
    return await finish(await start(served, *words, **environment))


async def line(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    read: dict[str, Any] = json.loads(await soon(process.stdout.readline()))
    return read


class TestShow:
    async def test_as_a_table(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        code, out, _ = await run(served, "show", user_id)
        assert code == 0
        assert user_id in out
        assert "5.000000" in out

    async def test_as_json(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        code, out, _ = await run(served, "show", user_id, "--json")
        assert code == 0
        assert json.loads(out)["credits_micros"] == str(CREDITS)


class TestWatch:
    async def test_tells_snapshot_and_changes_as_json(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        process = await start(served, "watch", user_id, "--json", "--count", "2")
        first = await line(process)
        await served.consume(user_id, 1)
        second = await line(process)
        code, _, _ = await finish(process)
        assert code == 0
        assert (first["event"], first["resynced"]) == ("snapshot", False)
        assert first["wallet"]["credits_micros"] == str(CREDITS)
        assert second["event"] == "change"
        assert second["first_sequence"] == second["sequence"] == first["sequence"] + 1
        assert second["credits_micros"] == CREDITS - 1

    async def test_says_how_to_go_on_when_interrupted(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        process = await start(served, "watch", user_id, "--json")
        first = await line(process)
        process.send_signal(signal.SIGINT)
        code, _, err = await finish(process)
        assert code == 130
        assert f"zaaz wallet watch {user_id} --resume {first['resume_token']}" in err

        await served.consume(user_id, 1)
        words = ("watch", user_id, "--count", "1", "--resume", first["resume_token"])
        code, out, _ = await run(served, *words)
        assert code == 0
        assert f"transaction {first['sequence'] + 1}  credits 4.999999" in out

    async def test_says_that_it_had_to_begin_anew(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        words = ("watch", user_id, "--count", "1", "--resume", "nonsense")
        code, out, _ = await run(served, *words)
        assert code == 0
        assert "resynced at 1" in out


class TestExitCodes:
    async def test_without_a_wallet(self, served: Served) -> None:
        code, _, err = await run(served, "show", new_user())
        assert code == 1
        assert "WALLET_NOT_FOUND" in err

    async def test_with_what_is_no_user(self, served: Served) -> None:
        code, _, err = await run(served, "watch", "ada")
        assert code == 2
        assert "24 lowercase hex digits" in err

    async def test_with_a_key_that_is_refused(self, served: Served) -> None:
        code, _, err = await run(served, "watch", new_user(), ZAAZ_API_KEY="wrong")
        assert code == 2
        assert "ZAAZ_API_KEY" in err

    async def test_without_a_server(self, served: Served) -> None:
        nowhere = f"127.0.0.1:{free_port()}"
        words = ("watch", new_user(), "--patience", "0.3")
        code, _, err = await run(served, *words, ZAAZ_TARGET=nowhere)
        assert code == 3
        assert nowhere in err
