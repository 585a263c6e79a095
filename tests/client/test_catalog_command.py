"""`zaaz catalog`, against a real server: compared, asked, applied, exported."""

import asyncio
import json
import os
import pty
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from zaaz.auth.v1.auth_service_pb2 import CreateApiKeyRequest

from tests.catalog.documents import export, forget_catalog
from tests.client.commands import WIDE, ZAAZ, zaaz
from tests.conftest import MongoClient
from tests.ledger.calls import soon
from tests.serving import Served, new_key, serving

FILE = """
features:
  chat:
    name: Chat
    endpoints:
      chat.send: {name: Send, method: POST, credits: 0.5}
plans:
  monthly: {days: 30}
packages:
  pro:
    name: Pro
    type: subscription
    initial: true
    plans:
      monthly: {price: {usd: 9.99}, credits: 1000, initial: true}
    features: [chat]
"""


DATABASE = f"test_{new_key()[:16]}"


@pytest.fixture(scope="module")
async def server(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Served]:
    async with serving(mongo_url, DATABASE) as served:
        yield served
    await mongo_client.drop_database(DATABASE)


@pytest.fixture
async def own(server: Served, mongo_client: MongoClient) -> Served:
    """A server without a catalog."""
    await forget_catalog(mongo_client[DATABASE])
    return server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(FILE)
    return path


def write(file: Path, text: str | bytes) -> None:
    file.write_bytes(text.encode() if isinstance(text, str) else text)


async def on_a_terminal(served: Served, answer: str, *words: str) -> tuple[int | None, str]:
    """What became of the command for somebody who types `answer`."""
    ours, theirs = pty.openpty()
    env = {**os.environ, **WIDE, "ZAAZ_TARGET": served.target, "ZAAZ_API_KEY": served.api_key}
    env["TERM"] = "xterm-256color"
    process = await asyncio.create_subprocess_exec(
        ZAAZ, "catalog", *words, stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = asyncio.create_task(asyncio.to_thread(_all_of, ours))
    await soon(process.wait())
    out = await soon(shown)
    os.close(ours)
    return process.returncode, out


def _all_of(terminal: int) -> str:
    shown = b""
    try:
        while some := os.read(terminal, 65_536):
            shown += some
    except OSError:
        # The last process on the other side has closed it.
        pass
    return shown.decode()


class TestApply:
    async def test_shows_asks_and_applies(self, own: Served, file: Path) -> None:
        code, out = await on_a_terminal(own, "n\n", "apply", str(file))
        assert code == 1
        assert "Apply these 6?" in out
        assert "\x1b[32mcreate" in out
        assert not (await export(own)).packages
        code, out = await on_a_terminal(own, "y\n", "apply", str(file))
        assert code == 0
        assert "Applied 6." in out
        assert (await export(own)).packages[0].plans[0].package_plan.price.usd_micros == 9_990_000
        code, out, err = await zaaz(own, "catalog", "apply", str(file))
        assert (code, out, err) == (0, "Nothing differs: 6 rows are so already.\n", "")

    async def test_where_nobody_can_be_asked(self, own: Served, file: Path) -> None:
        code, out, err = await zaaz(own, "catalog", "apply", str(file), answer="y\n")
        assert code == 2
        assert "nobody can be asked" in err
        assert "pro/monthly" in out
        assert "\x1b" not in out
        assert not (await export(own)).packages
        code, out, _ = await zaaz(own, "catalog", "apply", str(file), "--yes")
        assert (code, out.splitlines()[-1]) == (0, "Applied 6.")

    async def test_a_dry_run_changes_nothing(self, own: Served, file: Path) -> None:
        words = ("catalog", "apply", str(file), "--dry-run", "--yes")
        code, out, _ = await zaaz(own, *words)
        assert (code, out.splitlines()[-1]) == (0, "6 differ, 0 do not.")
        assert not (await export(own)).packages

    async def test_what_changes_is_shown_before_and_after(self, own: Served, file: Path) -> None:
        await zaaz(own, "catalog", "apply", str(file), "--yes")
        write(file, FILE.replace("9.99", "8.5").replace("[chat]", "[]"))
        _, out, _ = await zaaz(own, "catalog", "apply", str(file), "--dry-run")
        lines = [
            [cell.strip() for cell in line.strip("│").split("│")]
            for line in out.splitlines()
            if "pro/" in line
        ]
        assert lines == [
            [
                *("update", "package_plans", "pro/monthly", "price"),
                *("{usd: 9.99}", "{usd: 8.5}"),
            ],
            ["delete", "package_features", "pro/chat", "", "", ""],
        ]

    async def test_prune(self, own: Served, file: Path) -> None:
        await zaaz(own, "catalog", "apply", str(file), "--yes")
        write(file, "plans: {monthly: {days: 30}}")
        code, out, _ = await zaaz(own, "catalog", "apply", str(file))
        assert (code, out) == (0, "Nothing differs: 1 rows are so already.\n")
        code, out, _ = await zaaz(own, "catalog", "apply", str(file), "--prune", "--yes")
        assert (code, out.splitlines()[-1]) == (0, "Applied 5.")
        assert not (await export(own)).packages

    @pytest.mark.parametrize("text", ["", "# all gone\n", "features:\npackages: {}\n"])
    async def test_a_file_that_says_nothing_does_not_delete_all(
        self, own: Served, file: Path, text: str
    ) -> None:
        await zaaz(own, "catalog", "apply", str(file), "--yes")
        write(file, text)
        code, _, err = await zaaz(own, "catalog", "apply", str(file), "--prune", "--yes")
        assert (code, "says nothing" in err) == (2, True)
        assert (await export(own)).packages

    async def test_json_asks_nothing(self, own: Served, file: Path) -> None:
        code, out, _ = await zaaz(own, "catalog", "apply", str(file), "--json")
        shown = json.loads(out)
        assert (code, len(shown["differences"])) == (0, 6)
        assert "applied" not in shown
        assert not (await export(own)).packages
        code, out, _ = await zaaz(own, "catalog", "apply", str(file), "--json", "--yes")
        assert (code, json.loads(out)["applied"]) == (0, True)

    async def test_what_is_wrong_has_its_line(self, own: Served, file: Path) -> None:
        write(file, FILE.replace("days: 30", "dais: 30").replace("0.5", "0.12345678"))
        code, out, err = await zaaz(own, "catalog", "apply", str(file), "--yes")
        assert (code, out) == (2, "")
        assert f"{file}:6:54: '0.12345678' has more than 6 decimals" in err
        assert f"{file}:8:13: unknown key 'dais'; is 'days' meant?" in err

    async def test_what_the_server_refuses_has_its_line(self, own: Served, file: Path) -> None:
        write(file, FILE.replace("days: 30", "days: 99999").replace("name: Chat", "path: /"))
        code, _, err = await zaaz(own, "catalog", "apply", str(file), "--yes")
        assert code == 2
        assert f"{file}:8:13: " in err
        assert "document.plans[0].plan.duration_days" in err
        assert f"{file}:3:3: " in err
        write(file, FILE.replace("[chat]", "[chat, no]"))
        code, _, err = await zaaz(own, "catalog", "apply", str(file), "--yes")
        assert code == 2
        assert f"{file}:16:22: 'no' is not among the features that there are" in err

    async def test_other_troubles(self, own: Served, file: Path, tmp_path: Path) -> None:
        words = ("catalog", "apply", str(file))
        assert (await zaaz(own, *words, "--api-key", "wrong")).code == 2
        assert (await zaaz(own, *words, "--target", "127.0.0.1:1")).code == 3
        assert (await zaaz(own, "catalog", "apply", str(tmp_path / "none"))).code == 2
        write(file, b"\xff")
        ended = await zaaz(own, *words)
        assert (ended.code, "is not UTF-8" in ended.err) == (2, True)
        content = "x" * 45_000
        write(
            file, "packages:\n" + "".join(f"  p{i}: {{content: {content}}}\n" for i in range(100))
        )
        ended = await zaaz(own, *words, "--dry-run")
        assert (ended.code, "Apply it in parts" in ended.err) == (2, True)


class TestExport:
    async def test_what_it_prints_is_so_already(
        self, own: Served, file: Path, tmp_path: Path
    ) -> None:
        await zaaz(own, "catalog", "apply", str(file), "--yes")
        code, out, err = await zaaz(own, "catalog", "export")
        assert (code, err) == (0, "")
        assert "      monthly:\n        price: {usd: 9.99}\n        credits: 1000\n" in out
        written = tmp_path / "out.yaml"
        code, printed, _ = await zaaz(own, "catalog", "export", "-o", str(written))
        assert (code, printed) == (0, "")
        assert written.read_text() == out
        assert sorted(os.listdir(tmp_path)) == ["catalog.yaml", "out.yaml"]
        ended = await zaaz(own, "catalog", "apply", str(written), "--prune")
        assert ended.out == "Nothing differs: 6 rows are so already.\n"

    async def test_json(self, own: Served, file: Path) -> None:
        await zaaz(own, "catalog", "apply", str(file), "--yes")
        code, out, _ = await zaaz(own, "catalog", "export", "--json")
        assert (code, json.loads(out)["plans"][0]["plan"]["duration_days"]) == (0, 30)

    async def test_where_it_cannot_be_written(self, own: Served, tmp_path: Path) -> None:
        path = tmp_path / "none" / "out.yaml"
        code, _, err = await zaaz(own, "catalog", "export", "-o", str(path))
        assert (code, "cannot be written" in err) == (1, True)

    async def test_a_key_that_may_only_read(self, own: Served, file: Path) -> None:
        request = CreateApiKeyRequest(
            request_id=new_key(), client_id="reader", scopes=["catalog.read"]
        )
        key = (await own.auth.CreateApiKey(request)).key
        assert (await zaaz(own, "catalog", "export", "--api-key", key)).code == 0
        ended = await zaaz(own, "catalog", "apply", str(file), "--api-key", key)
        assert (ended.code, "catalog.write" in ended.err) == (2, True)
