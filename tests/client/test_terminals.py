"""What `zaaz` shows on a terminal, and does not write elsewhere; completion in shells."""

import asyncio
import json
import os
import pty
import re
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path

import pytest
from zaaz.wallet.v1.wallet_service_pb2 import CreateWalletRequest

from tests.client.commands import ZAAZ, zaaz
from tests.client.statement_files import plain_book
from tests.ledger.calls import soon
from tests.serving import Served, new_key, new_user, usage_event

CREDIT = 1_000_000
RED = "\x1b[1;31m"
CYAN = "\x1b[36m"
CURSOR = "\x1b[?25l"
"""Hidden while a bar is drawn."""
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PLAIN = dict.fromkeys(("NO_COLOR", "FORCE_COLOR", "COLORTERM"), "")


async def on_a_terminal(
    served: Served, *words: str, environment: Mapping[str, str] = {}, stdout_too: bool = False
) -> tuple[int | None, str, str]:
    """Exit code, stdout unless it is the terminal too, and what a terminal at stderr was sent."""
    asking = {"ZAAZ_TARGET": served.target, "ZAAZ_API_KEY": served.api_key}
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120", **asking, **environment}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        if not environment.get(name):
            env.pop(name, None)
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            ZAAZ,
            *words,
            stdin=DEVNULL,
            stdout=theirs if stdout_too else PIPE,
            stderr=theirs,
            env=env,
        )
        os.close(theirs)
        reading = asyncio.create_task(asyncio.to_thread(_read, ours))
        out, _ = await soon(process.communicate())
        return process.returncode, (out or b"").decode(), await soon(reading)
    finally:
        os.close(ours)


def _read(terminal: int) -> str:
    """All that is sent until its other end is closed."""
    text = b""
    while True:
        try:
            text += os.read(terminal, 65_536)
        except OSError:  # how Linux tells it
            return text.decode()


class TestTables:
    @pytest.mark.parametrize("columns", ["70", "80", "200"])
    async def test_no_word_of_one_is_broken(self, served: Served, columns: str) -> None:
        user_id, email = new_user(), f"{new_key()}@example.com"
        request = CreateWalletRequest(request_id=new_key(), user_id=user_id, email=email)
        await served.wallets.CreateWallet(request)
        await served.grant(user_id, 12_345_678_901)
        words, width = ("wallet", "list", "--email", email), {"COLUMNS": columns}
        _, _, seen = await on_a_terminal(served, *words, environment=width, stdout_too=True)
        _, piped, _ = await zaaz(served, *words, **width)
        for shown in (seen, piped):
            assert all(word in shown for word in (user_id, email, "12345.678901"))
            assert "made" in shown
        lines = [line for line in STYLE.sub("", seen).splitlines() if line[:1] in "┃│"]
        assert max(map(len, lines)) <= int(columns)


class TestColours:
    async def test_on_a_terminal_alone(self, served: Served) -> None:
        words = ("wallet", "show", new_user())
        code, _, err = await on_a_terminal(served, *words)
        assert (code, err.startswith(f"{RED}Error:")) == (1, True)
        _, _, err = await on_a_terminal(served, *words, environment={"NO_COLOR": "1"})
        assert "Error:" in err
        assert "31m" not in err
        ended = await zaaz(served, *words, TERM="xterm", **PLAIN)
        assert ended.err.startswith("Error: WALLET_NOT_FOUND")
        assert "\x1b" not in ended.err + ended.out

    async def test_of_what_is_shown(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        words = ("wallet", "show", user_id)
        _, _, shown = await on_a_terminal(served, *words, stdout_too=True)
        assert f"{CYAN}user" in shown
        assert "1.000000" in shown
        no_colour = {"NO_COLOR": "1"}
        _, _, shown = await on_a_terminal(served, *words, environment=no_colour, stdout_too=True)
        assert "1.000000" in shown
        assert "\x1b[" not in shown
        ended = await zaaz(served, *words, TERM="xterm", **PLAIN)
        assert (ended.code, user_id in ended.out, "1.000000" in ended.out) == (0, True, True)
        assert "\x1b" not in ended.out + ended.err

    async def test_of_wrong_usage(self, served: Served) -> None:
        for words, said in (
            (("wallet", "show"), "Missing argument 'USER'"),
            (("wallet", "shwo"), "No such command 'shwo'"),
            (("--wallet",), "No such option '--wallet'"),
            (("grant", "ada", "5"), "24 lowercase hex digits"),
        ):
            code, out, err = await on_a_terminal(served, *words)
            assert (code, out) == (2, "")
            assert err.startswith(f"{RED}Error:")
            assert said in err
            ended = await zaaz(served, *words, TERM="xterm", **PLAIN)
            assert ended.err.startswith("Error: ")
            assert "\nUsage: zaaz " in ended.err
            assert "\x1b" not in ended.err

    async def test_elsewhere_if_they_are_forced(self, served: Served) -> None:
        words = ("wallet", "show", new_user())
        ended = await zaaz(served, *words, **{**PLAIN, "TERM": "xterm", "FORCE_COLOR": "1"})
        assert ended.err.startswith(f"{RED}Error:")


class TestBars:
    async def test_of_wallets_that_are_verified(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        code, out, err = await on_a_terminal(served, "wallet", "verify", user_id)
        assert (code, out) == (0, "Sound: 1 wallets, 1 transactions.\n")
        assert CURSOR in err
        assert "wallets verified" in err
        forced = {"TERM": "xterm", "FORCE_COLOR": "1"}
        ended = await zaaz(served, "wallet", "verify", user_id, **{**PLAIN, **forced})
        assert ended.err == ""

    async def test_are_not_among_what_is_printed_meanwhile(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        for words in (("verify", user_id), ("list", "--limit", "1")):
            code, out, err = await on_a_terminal(served, "wallet", *words, "--json")
            assert (code, json.loads(out)["user_id"] != "") == (0, True)
            assert CURSOR in err
            shown = ("wallet", *words, "--json")
            code, _, err = await on_a_terminal(served, *shown, stdout_too=True)
            assert (code, "\x1b" in err) == (0, False)
            assert '"user_id": "' in err

    async def test_of_lists(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        await served.record(usage_event(new_user()))
        for words in (
            ("wallet", "list"),
            ("keys", "list"),
            ("models", "list"),
            ("usage", "rejected", "list"),
        ):
            code, out, err = await on_a_terminal(served, *words, "--limit", "1")
            assert (code, "\x1b" in out) == (0, False)
            assert CURSOR in err
            assert "listed" in err
            assert "1/1" in err
        shown = ("wallet", "list", "--limit", "0")
        # Other tests' wallets may be long-named: no id is to be folded.
        wide = {"COLUMNS": "400"}
        code, _, err = await on_a_terminal(served, *shown, environment=wide, stdout_too=True)
        assert (code, user_id in err) == (0, True)

    async def test_of_usage_that_is_replayed(self, served: Served) -> None:
        user_id = new_user()
        await served.record(usage_event(user_id))
        await served.new_wallet(CREDIT, user_id)
        words = ("usage", "rejected", "replay", "--all", "--user", user_id)
        code, out, err = await on_a_terminal(served, *words)
        assert (code, out) == (0, "Billed 1 of 1: 0.540000 credits.\n")
        assert "replayed" in err

    async def test_of_usage_that_is_discarded(self, served: Served) -> None:
        user_id = new_user()
        await served.record(usage_event(user_id))
        words = ("usage", "rejected", "discard", "--all", "--user", user_id, "--yes")
        code, out, err = await on_a_terminal(served, *words)
        assert (code, out) == (0, "Discarded 1.\n")
        assert CURSOR in err
        assert "discarded" in err

    async def test_of_a_statement_that_is_verified(self, served: Served, tmp_path: Path) -> None:
        file = tmp_path / "statement.csv"
        file.write_bytes(b"".join(plain_book().lines("csv")))
        words = ("statement", "verify", str(file), "--no-signature")
        code, out, err = await on_a_terminal(served, *words)
        assert (code, f"{file}: good." in out, "\x1b" in out) == (0, True, False)
        assert CURSOR in err
        assert "bytes verified" in err
        assert f"/{file.stat().st_size}" in err
        ended = await zaaz(served, *words, TERM="xterm", **PLAIN)
        assert ended.err.startswith("The signature was NOT checked")

    async def test_of_a_statement(self, served: Served, tmp_path: Path) -> None:
        user_id = await served.new_wallet(CREDIT)
        file = tmp_path / "statement.csv"
        code, out, err = await on_a_terminal(served, "statement", "get", user_id, "-o", str(file))
        assert (code, out) == (0, "")
        assert "lines written" in err
        assert file.read_text().count("\n") == 4

    async def test_of_an_import(self, served: Served) -> None:
        code, out, err = await on_a_terminal(served, "models", "import", "--dry-run", "--json")
        assert code == 0
        assert "differences" in json.loads(out) or "unchanged" in json.loads(out)
        assert "comparing" in err

    async def test_of_a_run(self, served: Served, tmp_path: Path) -> None:
        trace = tmp_path / "trace.csv"
        trace.write_text(
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:17:03.9799600,374,44\n"
            "2023-11-16 18:17:04.0319600,396,109\n"
        )
        words = ("replay", str(trace), "--users", "2", "--json")
        code, out, err = await on_a_terminal(served, *words)
        assert (code, json.loads(out)["ok"]) == (0, True)
        assert "Sending events" in err


class TestCompletion:
    async def test_the_shells_scripts(self, served: Served) -> None:
        for shell, said in (
            ("bash", "complete -o nosort -F"),
            ("zsh", "#compdef zaaz"),
            ("fish", "complete --no-files --command zaaz"),
        ):
            ended = await zaaz(served, "completion", shell)
            assert (ended.code, said in ended.out) == (0, True), ended
        assert (await zaaz(served, "completion", "tcsh")).code == 2

    @pytest.mark.skipif(shutil.which("bash") is None, reason="this machine has no bash")
    async def test_bash_completes(self) -> None:
        script = (
            'eval "$(zaaz completion bash)"; COMP_WORDS=(zaaz wallet ve); COMP_CWORD=2; '
            '_zaaz_completion zaaz; echo "${COMPREPLY[@]}"'
        )
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, stdout=PIPE, env={**os.environ, "PATH": path}
        )
        out, _ = await soon(process.communicate())
        assert out == b"verify\n"

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    async def test_what_the_other_shells_ask(self, served: Served, shell: str) -> None:
        words = {"COMP_WORDS": "zaaz wallet ve", "COMP_CWORD": "ve" if shell == "fish" else "2"}
        ended = await zaaz(served, _ZAAZ_COMPLETE=f"{shell}_complete", **words)
        assert ended.code == 0
        assert "verify" in ended.out
        assert "watch" not in ended.out
