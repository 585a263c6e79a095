"""What a package was sold as is read, and nothing else, whatever the path."""

import httpx2
import pytest

PATH = "/api/package-histories"
ROW = f"{PATH}/{'0' * 24}"


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", PATH),
        ("PATCH", ROW),
        ("PUT", ROW),
        ("DELETE", ROW),
        ("DELETE", f"{ROW}/permanent"),
        ("POST", f"{ROW}/restore"),
        ("POST", f"{PATH}/bulk-delete"),
        ("DELETE", f"{PATH}/bulk?ids=1"),
    ],
)
async def test_no_path_changes_one(rest: httpx2.AsyncClient, verb: str, path: str) -> None:
    answer = await rest.request(verb, path, json={})
    assert answer.status_code == 405
    assert answer.json()["reason"] in ("LEDGER_IMMUTABLE", "VERB_NOT_ALLOWED")
