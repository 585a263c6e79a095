"""Which path and verb lead where, and what those that lead nowhere are told."""

import httpx2
import pytest

Client = httpx2.AsyncClient


class TestRoutes:
    async def test_literals_stand_before_variables(self, echoed: Client) -> None:
        assert (await echoed.delete("/api/things/bulk?ids=1")).json() == {"ids": ["1"]}
        assert (await echoed.get("/api/things/bulk")).json()["thing"]["id"] == "bulk"

    @pytest.mark.parametrize(
        ("verb", "path", "allow"),
        [
            ("PUT", "/api/things", "GET, HEAD"),
            ("POST", "/api/things/1", "GET, HEAD, PATCH"),
            ("PUT", "/api/things/bulk", "DELETE, GET, HEAD, PATCH"),
            ("OPTIONS", "/api/things", "GET, HEAD"),
            ("POST", "/healthz", "GET, HEAD"),
        ],
    )
    async def test_other_verbs(self, echoed: Client, verb: str, path: str, allow: str) -> None:
        answer = await echoed.request(verb, path)

        assert answer.status_code == 405
        assert answer.headers["allow"] == allow
        assert answer.json()["reason"] == "VERB_NOT_ALLOWED"

    @pytest.mark.parametrize(
        ("verb", "path", "allow"),
        [
            ("POST", "/api/rows", "GET, HEAD"),
            ("PATCH", "/api/rows/1", "GET, HEAD"),
            ("DELETE", "/api/rows/1", "GET, HEAD"),
            ("DELETE", "/api/rows/bulk?ids=1", "GET, HEAD"),
            ("POST", "/api/rows/bulk-delete", "GET, HEAD"),
            ("POST", "/api/rows/1/restore", ""),
            ("DELETE", "/api/rows/1/permanent", ""),
        ],
    )
    async def test_ledgers_are_read(self, echoed: Client, verb: str, path: str, allow: str) -> None:
        answer = await echoed.request(verb, path)

        assert answer.status_code == 405
        assert answer.json()["reason"] == "LEDGER_IMMUTABLE"
        assert answer.headers["allow"] == allow

    async def test_the_contracts_ledgers(self, rest: Client) -> None:
        for path in ("/api/credits-transactions", "/api/credits-usages"):
            answer = await rest.post(path, json={})
            assert answer.status_code == 405
            assert answer.json()["reason"] == "LEDGER_IMMUTABLE"

    async def test_raw_bodies(self, echoed: Client) -> None:
        headers = {"content-type": "application/x-thing"}
        answer = await echoed.post("/api/hooks/mail", content=b"\x00\xff", headers=headers)

        assert answer.content == b"mail:\x00\xff"
        assert answer.headers["content-type"] == "application/x-thing"

    async def test_head_is_get_without_its_body(self, echoed: Client) -> None:
        get = await echoed.get("/api/things/1")
        head = await echoed.head("/api/things/1")

        assert head.content == b""
        for name in ("content-length", "etag", "content-type"):
            assert head.headers[name] == get.headers[name]
