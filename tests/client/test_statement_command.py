"""`zaaz statement`, against a real server and without any."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from click.testing import CliRunner
from zaaz_client.command.main import main
from zaaz_client.statements.verify import MAX_LINE_BYTES, key_id

from tests.serving import Served, new_user

from .statement_files import CREDIT, PUBLIC_KEY, USER, plain_book

ZAAZ = Path(sys.executable).with_name("zaaz")
FORMAT = pytest.mark.parametrize("format_name", ["csv", "jsonl"])
NOWHERE = "127.0.0.1:1"


async def zaaz(*words: str, **environment: str) -> tuple[int, str, str]:
    env = {**os.environ, **environment}
    process = await asyncio.create_subprocess_exec(
        ZAAZ, "statement", *words, stdout=PIPE, stderr=PIPE, env=env
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


def verify(*words: str) -> tuple[int, str, str]:
    """Offline, so without a process of its own."""
    result = CliRunner().invoke(main, ["statement", "verify", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def drop_line(file: Path, number: int) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    del lines[number - 1]
    file.write_bytes(b"".join(lines))


@pytest.fixture
def asking(served: Served) -> dict[str, str]:
    """The environment that names the server and its key."""
    return {"ZAAZ_TARGET": served.target, "ZAAZ_API_KEY": served.api_key}


class TestGet:
    @FORMAT
    async def test_what_is_got_is_good(
        self, served: Served, asking: dict[str, str], tmp_path: Path, format_name: str
    ) -> None:
        user_id = await served.new_wallet(5 * CREDIT)
        await served.consume(user_id, 2 * CREDIT)
        file, keys = tmp_path / "statement", tmp_path / "keys"
        code, out, err = await zaaz(
            "get", user_id, "--format", format_name, "-o", str(file), **asking
        )
        assert (code, out, err) == (0, "", "")
        assert files(tmp_path) == ["statement"]
        code, out, _ = await zaaz("keys", ZAAZ_TARGET=served.target)
        assert code == 0
        keys.write_text(out)
        code, out, err = await zaaz("keys", "--json", ZAAZ_TARGET=served.target)
        lines = [json.loads(line) for line in out.splitlines()]
        assert (code, err) == (0, "")
        told = [f"{line['key_id']} {line['public_key']}" for line in lines]
        assert told == keys.read_text().splitlines()
        code, out, err = await zaaz("verify", str(file), "--key", str(keys), ZAAZ_TARGET=NOWHERE)
        assert (code, err) == (0, "")
        assert user_id in out
        assert "0.000000 before, 3.000000 after" in out
        assert (await zaaz("verify", str(file), "--fetch", **asking))[0] == 0
        drop_line(file, 3)
        code, out, err = await zaaz("verify", str(file), "--key", str(keys))
        assert (code, out) == (1, "")
        assert f"{file}: line 3: " in err

    async def test_goes_to_stdout_and_takes_a_period(
        self, served: Served, asking: dict[str, str]
    ) -> None:
        user_id = await served.new_wallet(5 * CREDIT)
        code, out, _ = await zaaz("get", user_id, **asking)
        assert code == 0
        assert [line.split(",")[0] for line in out.splitlines()] == [
            "type",
            "statement",
            "transaction",
            "head",
        ]
        period = ("--from", "2020-01-01", "--to", "2020-02-01T01:00:00+01:00")
        code, out, _ = await zaaz("get", user_id, "--format", "jsonl", *period, **asking)
        opening, head = out.splitlines()
        assert code == 0
        assert '"start_time":"2020-01-01T00:00:00.000Z"' in opening
        assert '"end_time":"2020-02-01T00:00:00.000Z"' in opening
        assert '"type":"head"' in head

    async def test_many_pages(
        self, served: Served, asking: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.wallet.statement_servicer.MAX_PAGE_SIZE", 2)
        user_id = await served.new_wallet()
        for _ in range(5):
            await served.grant(user_id, 1)
        code, out, _ = await zaaz("get", user_id, "--format", "jsonl", **asking)
        assert code == 0
        assert len(out.splitlines()) == 7

    async def test_failures_have_their_codes_and_leave_no_file(
        self, served: Served, asking: dict[str, str], tmp_path: Path
    ) -> None:
        file = tmp_path / "statement.csv"
        user_id = await served.new_wallet()
        for words, changes, expected, said in (
            ((new_user(),), {}, 1, "WALLET_NOT_FOUND"),
            (("x",), {}, 2, "24 lowercase hex digits"),
            ((user_id,), {"ZAAZ_API_KEY": "wrong"}, 2, "CREDENTIALS_INVALID"),
            ((user_id, "--from", "yesterday"), {}, 2, "2027-01-31"),
            ((user_id, "--format", "pdf"), {}, 2, "csv"),
        ):
            code, out, err = await zaaz("get", *words, "-o", str(file), **{**asking, **changes})
            assert (code, out) == (expected, "")
            assert said in err
        assert files(tmp_path) == []
        missing = tmp_path / "missing" / "statement.csv"
        code, _, err = await zaaz("get", user_id, "-o", str(missing), **asking)
        assert (code, "cannot be written" in err) == (2, True)


class TestVerify:
    @pytest.fixture(params=["csv", "jsonl"])
    def file(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        path = tmp_path / "statement"
        path.write_bytes(b"".join(plain_book().lines(request.param)))
        return path

    def test_a_good_one(self, file: Path) -> None:
        code, out, err = verify(str(file), "--key", PUBLIC_KEY.hex())
        assert (code, err) == (0, "")
        assert f"{file}: good" in out
        assert USER in out
        assert "after number 0" in out

    def test_as_json(self, file: Path) -> None:
        code, out, err = verify(str(file), "--key", PUBLIC_KEY.hex(), "--json")
        found = json.loads(out)
        assert (code, err) == (0, "")
        assert (found["good"], found["signature_checked"], found["problems"]) == (True, True, [])
        assert (found["file"], found["user_id"]) == (str(file), USER)
        assert (found["opening_sequence"], found["opening_balance_micros"]) == (0, 0)
        assert found["transactions"] == 5
        assert found["start_time"] < found["end_time"] <= found["signed_time"]
        assert found["key_id"] == key_id(PUBLIC_KEY)
        code, out, err = verify(str(file), "--json")
        found = json.loads(out)
        assert (code, found["good"], found["signature_checked"]) == (2, False, False)
        assert "NOT checked" in err

    def test_a_bad_one_as_json(self, file: Path) -> None:
        drop_line(file, 4)
        code, out, err = verify(str(file), "--key", PUBLIC_KEY.hex(), "--json")
        found = json.loads(out)
        assert (code, found["good"]) == (1, False)
        assert found["problems"][0]["line"] == 4
        assert found["problems"][0]["message"] in err
        file.write_text("nonsense\n")
        code, out, _ = verify(str(file), "--json")
        assert (code, json.loads(out)["good"], "user_id" in out) == (1, False, False)

    def test_without_a_key_it_says_what_was_not_checked(self, file: Path) -> None:
        code, _, err = verify(str(file))
        assert code == 2
        assert "signature was NOT checked" in err
        code, out, err = verify(str(file), "--no-signature")
        assert code == 0
        assert "good" in out
        assert "NOT checked" in err

    def test_a_bad_one_is_bad_without_a_key_too(self, file: Path) -> None:
        drop_line(file, 4)
        code, out, err = verify(str(file), "--no-signature")
        assert (code, out) == (1, "")
        assert f"{file}: line 4: " in err

    def test_keys_come_as_hex_or_bytes_or_a_list(self, file: Path, tmp_path: Path) -> None:
        other = bytes(reversed(PUBLIC_KEY))
        for name, content in (
            ("bytes", PUBLIC_KEY),
            ("hex", PUBLIC_KEY.hex().encode() + b"\n"),
            ("list", f"0123456789abcdef {PUBLIC_KEY.hex()}\n".encode()),
        ):
            path = tmp_path / name
            path.write_bytes(content)
            code, _, err = verify(str(file), "--key", str(path))
            assert code == 0, err
        code, _, err = verify(str(file), "--key", other.hex())
        assert (code, "signed with the key" in err) == (1, True)

    def test_an_endless_line(self, file: Path) -> None:
        with file.open("ab") as more:
            more.write(b"x" * (2 * MAX_LINE_BYTES))
        code, _, err = verify(str(file), "--no-signature")
        assert (code, "after the signed head" in err) == (1, True)

    def test_wrong_usage_is_named(self, file: Path, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.write_bytes(b"")
        for words, said in (
            ((str(file), "--key", "abc"), "64 hex digits"),
            ((str(file), "--key", str(empty)), "64 hex digits"),
            ((str(tmp_path / "missing"),), "does not exist"),
            ((), "FILE"),
        ):
            code, _, err = verify(*words)
            assert (code, said in err) == (2, True), err

    def test_a_server_that_is_away(self, file: Path) -> None:
        code, _, err = verify(str(file), "--fetch", "--target", NOWHERE)
        assert code == 3
        assert NOWHERE in err
