"""`zaaz models`, against a real server: listed, compared, asked, applied."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import MongoClient
from tests.credits.priced import change_model, dollars, find_model, get_model
from tests.serving import Served, new_key, serving

ZAAZ = Path(sys.executable).with_name("zaaz")
MINI = "openai/gpt-4o-mini"
WIDE = {"COLUMNS": "160", "TERM": "dumb"}


@pytest.fixture(scope="module")
async def own(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Served]:
    """A server whose models nobody else changes."""
    name = f"test_{new_key()[:16]}"
    async with serving(mongo_url, name) as server:
        yield server
    await mongo_client.drop_database(name)


async def zaaz(served: Served, *words: str, answer: str = "") -> tuple[int, str, str]:
    asking = {"ZAAZ_TARGET": served.target, "ZAAZ_API_KEY": served.api_key}
    process = await asyncio.create_subprocess_exec(
        ZAAZ,
        "models",
        *words,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **WIDE, **asking},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(answer.encode())
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


class TestList:
    async def test_shows_prices_in_dollars(self, own: Served) -> None:
        code, out, err = await zaaz(own, "list", "--search", "OpenAI/gpt-4o-mini")
        assert (code, err) == (0, "")
        line = next(line for line in out.splitlines() if f" {MINI} " in line)
        cells = [cell.strip() for cell in line.strip("│┃ ").split("│")]
        assert cells[2:] == ["0.15", "0.6", "0.075", "input", "-"]

    async def test_json_has_a_model_a_line(self, own: Served) -> None:
        words = ("--provider", "mistral", "--provider", "cohere", "--limit", "1000", "--json")
        code, out, _ = await zaaz(own, "list", *words)
        models = [json.loads(line) for line in out.splitlines()]
        assert (code, {model["provider"] for model in models}) == (0, {"mistral", "cohere"})
        assert [model["value"] for model in models] == sorted(model["value"] for model in models)


class TestImport:
    async def test_says_when_nothing_differs(self, own: Served) -> None:
        code, out, _ = await zaaz(own, "import", "--provider", "mistral")
        assert (code, out.startswith("Nothing differs from genai-prices ")) == (0, True)

    async def test_asks_before_it_applies(self, own: Served) -> None:
        model = await find_model(own, MINI)
        await change_model(own, model.id, prices=dollars(9))
        code, out, err = await zaaz(own, "import", answer="n\n")
        assert code == 1
        assert "9 → 0.15" in out
        assert "Apply these 1?" in out + err
        assert (await get_model(own, model.id)).prices == dollars(9)
        code, out, _ = await zaaz(own, "import", "--dry-run", "--yes")
        assert (code, (await get_model(own, model.id)).prices) == (0, dollars(9))
        code, out, _ = await zaaz(own, "import", answer="y\n")
        assert code == 0
        assert "Applied 1 from genai-prices " in out
        assert (await get_model(own, model.id)).prices == model.prices

    async def test_json_asks_nothing(self, own: Served) -> None:
        model = await find_model(own, MINI)
        await change_model(own, model.id, prices=dollars(9))
        code, out, _ = await zaaz(own, "import", "--json")
        shown = json.loads(out)
        assert (code, shown["differences"][0]["value"]) == (0, MINI)
        assert "applied" not in shown
        assert (await get_model(own, model.id)).prices == dollars(9)
        code, out, _ = await zaaz(own, "import", "--json", "--yes")
        assert (code, json.loads(out)["applied"]) == (0, True)
        assert (await get_model(own, model.id)).prices == model.prices

    async def test_refusals_are_words_and_a_code(self, own: Served) -> None:
        code, _, err = await zaaz(own, "import", "--effective-time", "2001-01-01")
        assert code == 2
        assert "effective_time" in err
        code, _, err = await zaaz(own, "list", "--api-key", "wrong")
        assert code == 2
        code, _, err = await zaaz(own, "list", "--target", "127.0.0.1:1")
        assert code == 3
