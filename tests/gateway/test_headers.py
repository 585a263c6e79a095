"""What stands in heads: ids, keys, entity tags, deadlines, codings."""

import gzip
import re
from typing import Any
from uuid import UUID

import brotli
import httpx2
import pytest

from tests.gateway.echo import Echo
from tests.serving import Served, new_key, new_user

Client = httpx2.AsyncClient
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def told(echoed: Client, **headers: str) -> tuple[httpx2.Response, dict[str, str]]:
    """An answer, and the metadata with which the server was called."""
    answer = await echoed.post("/api/fail", json={}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer, answer.json()["metadata"]


class TestIds:
    async def test_they_are_made_where_none_are(self, echoed: Client) -> None:
        answer, metadata = await told(echoed)

        assert answer.headers["x-request-id"] == metadata["x-request-id"]
        assert answer.headers["traceparent"] == metadata["traceparent"]
        assert TRACEPARENT.fullmatch(metadata["traceparent"])
        again, _ = await told(echoed)
        assert again.headers["x-request-id"] != answer.headers["x-request-id"]

    async def test_they_are_kept(self, echoed: Client) -> None:
        answer, metadata = await told(echoed, **{"x-request-id": "abc-1", "traceparent": TRACE})

        assert answer.headers["x-request-id"] == metadata["x-request-id"] == "abc-1"
        assert metadata["traceparent"][:36] == TRACE[:36]
        assert metadata["traceparent"][52:] == TRACE[52:]
        assert metadata["traceparent"] != TRACE, "the gateway is a span of its own"

    @pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "-", '"'])
    async def test_bad_request_ids_are_replaced(self, echoed: Client, bad: str) -> None:
        answer, metadata = await told(echoed, **{"x-request-id": bad})

        assert answer.headers["x-request-id"] == metadata["x-request-id"] != bad

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            TRACE.upper(),
            TRACE[:-1],
            "ff" + TRACE[2:],
            f"00-{'0' * 32}-b7ad6b7169203331-01",
            f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        ],
    )
    async def test_bad_traces_begin_anew(self, echoed: Client, bad: str) -> None:
        _, metadata = await told(echoed, traceparent=bad)

        assert TRACEPARENT.fullmatch(metadata["traceparent"])
        assert TRACE[3:35] not in metadata["traceparent"]

    async def test_refusals_bear_them(self, echoed: Client) -> None:
        for path in ("/nowhere", "/api/things?nope=1"):
            answer = await echoed.get(path, headers={"x-request-id": "abc-2"})
            assert answer.headers["x-request-id"] == "abc-2"

    @pytest.mark.parametrize(
        "name", ["authorization", "idempotency-key", "if-match", "x-request-id", "traceparent"]
    )
    async def test_headers_that_stand_twice(self, echoed: Client, name: str) -> None:
        answer = await echoed.get("/api/things", headers=[(name, "a"), (name, "b")])

        assert answer.status_code == 400
        assert answer.json()["metadata"] == {"field": name}


class TestKeys:
    async def test_one_is_made_for_what_changes_something(self, echoed: Client) -> None:
        answer = await echoed.patch("/api/things/1", json={})

        key = answer.headers["idempotency-key"]
        assert str(UUID(key)) == key == answer.json()["request_id"]

    async def test_the_callers_is_kept(self, echoed: Client) -> None:
        headers = {"idempotency-key": "order-4711"}
        answer = await echoed.patch("/api/things/1", json={}, headers=headers)

        assert answer.headers["idempotency-key"] == answer.json()["request_id"] == "order-4711"

    async def test_the_querys_and_the_bodys_count(self, echoed: Client) -> None:
        query = await echoed.patch("/api/things/1?request_id=a", json={})
        assert query.headers["idempotency-key"] == "a"

        both = {"idempotency-key": "a"}
        body = {"request_id": "a", "everything": {}}
        same = await echoed.post("/api/everything/whole", json=body, headers=both)
        assert same.headers["idempotency-key"] == "a"

    async def test_two_that_differ(self, echoed: Client) -> None:
        answer = await echoed.post(
            "/api/everything/whole", json={"request_id": "a"}, headers={"idempotency-key": "b"}
        )

        assert answer.status_code == 400
        assert answer.json()["violations"][0]["field"] == "request_id"

    @pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "é"])
    async def test_bad_ones(self, echoed: Client, bad: str) -> None:
        headers = {b"idempotency-key": bad.encode("latin-1")}
        answer = await echoed.patch("/api/things/1", json={}, headers=headers)

        assert answer.status_code == 400
        assert answer.json()["violations"][0]["field"] == "idempotency-key"

    async def test_no_bodys_key_gets_into_a_header_unseen(self, echoed: Client) -> None:
        body = {"request_id": "a\r\nset-cookie: x=y", "everything": {}}
        answer = await echoed.post("/api/everything/whole", json=body)

        assert "set-cookie" not in answer.headers
        assert "idempotency-key" not in answer.headers

    async def test_reads_have_none(self, echoed: Client) -> None:
        headers = {"idempotency-key": "a"}
        answer = await echoed.get("/api/things", headers=headers)

        assert answer.status_code == 200
        assert "idempotency-key" not in answer.headers

    async def test_sending_again_moves_nothing(self, rest: Client, served: Served) -> None:
        user_id = await served.new_wallet(5_000_000)
        body = {"user_id": user_id, "credits_micros": "2000000"}
        headers = {"idempotency-key": new_key()}

        answers = [
            await rest.post("/api/credits-process/consume", json=body, headers=headers)
            for _ in range(2)
        ]

        assert answers[0].json() == answers[1].json()
        assert (await served.wallet(user_id)).credits_micros == 3_000_000
        changed = {**body, "credits_micros": "1"}
        refused = await rest.post("/api/credits-process/consume", json=changed, headers=headers)
        assert refused.status_code == 409
        assert refused.json()["reason"] == "REQUEST_ID_REUSED"
        assert refused.headers["idempotency-key"] == headers["idempotency-key"]


class TestEntityTags:
    async def test_a_resource_has_one(self, echoed: Client) -> None:
        answer = await echoed.get("/api/things/1")

        assert re.fullmatch('"7:[0-9a-f]{16}"', answer.headers["etag"])
        assert answer.headers["cache-control"] == "private, no-cache"

    async def test_lists_have_none(self, echoed: Client) -> None:
        answer = await echoed.get("/api/things")

        assert "etag" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("wrap", ["{}", 'W/{}, "x"', '"y", {}', "*"])
    async def test_what_the_client_has_is_not_sent(self, echoed: Client, wrap: str) -> None:
        etag = (await echoed.get("/api/things/1")).headers["etag"]

        answer = await echoed.get("/api/things/1", headers={"if-none-match": wrap.format(etag)})

        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["etag"] == etag

    async def test_other_bytes_under_the_same_etag_are_sent(self, echoed: Client) -> None:
        etag = (await echoed.get("/api/things/1")).headers["etag"]

        answer = await echoed.get("/api/things/2", headers={"if-none-match": etag})

        assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("if_match", "etag"),
        [('"7"', "7"), ('W/"7"', "7"), ('"7:0123456789abcdef"', "7"), ('"a:b"', "a:b"), ("*", "")],
    )
    async def test_updates_are_guarded(self, echoed: Client, if_match: str, etag: str) -> None:
        headers = {"if-match": if_match}
        answer = await echoed.patch("/api/things/1", json={}, headers=headers)

        assert answer.json()["thing"]["etag"] == etag

    @pytest.mark.parametrize(
        ("method", "path", "if_match", "field"),
        [
            ("PATCH", "/api/things/1", "7", "if-match"),
            ("PATCH", "/api/things/1", '"7", "8"', "if-match"),
            ("DELETE", "/api/things/bulk", '"7"', "if-match"),
        ],
    )
    async def test_guards_that_cannot_be(
        self, echoed: Client, method: str, path: str, if_match: str, field: str
    ) -> None:
        answer = await echoed.request(method, path, headers={"if-match": if_match})

        assert answer.status_code == 400
        assert answer.json()["violations"][0]["field"] == field

    async def test_the_bodys_etag_and_the_header_must_agree(self, echoed: Client) -> None:
        headers = {"if-match": '"7"'}
        answer = await echoed.patch("/api/things/1", json={"etag": "8"}, headers=headers)

        assert answer.status_code == 400

    async def test_a_wallets_settings(self, rest: Client) -> None:
        user_id = new_user()
        made = await rest.post("/api/user-wallets", json={"user_id": user_id})
        path, body = f"/api/user-wallets/{user_id}", {"low_balance_threshold_micros": "5"}
        headers = {"if-match": made.headers["etag"]}

        first = await rest.patch(path, json=body, headers=headers)
        assert first.status_code == 200
        assert first.json()["wallet"]["low_balance_threshold_micros"] == "5"
        second = await rest.patch(path, json=body, headers=headers)
        assert second.status_code == 412
        assert second.json()["reason"] == "ETAG_MISMATCH"
        emptied = await rest.patch(path, json={"low_balance_threshold_micros": 0})
        assert emptied.json()["wallet"]["low_balance_threshold_micros"] == "0"

    async def test_a_balance_that_moved_is_sent(self, rest: Client, served: Served) -> None:
        user_id = await served.new_wallet()
        before = await rest.get(f"/api/user-wallets/{user_id}")
        await served.grant(user_id, 7)

        headers = {"if-none-match": before.headers["etag"]}
        after = await rest.get(f"/api/user-wallets/{user_id}", headers=headers)

        assert after.status_code == 200
        assert after.json()["wallet"]["credits_micros"] == "7"


class TestDeadlines:
    async def remaining(self, echoed: Client, **headers: str) -> float:
        answer = await echoed.post("/api/fail", json={}, headers=headers)
        return float(answer.json()["time_remaining"])

    async def test_it_goes_with_the_call(self, echoed: Client) -> None:
        assert 0 < await self.remaining(echoed, **{"x-request-timeout": "7.5"}) < 8
        assert 8 < await self.remaining(echoed) < 36

    @pytest.mark.parametrize("bad", ["", "0", "-1", "121", "1e3", "5s", "nan", "1.2345"])
    async def test_bad_ones(self, echoed: Client, bad: str) -> None:
        answer = await echoed.get("/api/things", headers={"x-request-timeout": bad})

        assert answer.status_code == 400
        assert answer.json()["violations"][0]["field"] == "x-request-timeout"

    async def test_it_ends_the_call(self, own: Client, echo: Echo) -> None:
        headers = {"x-request-timeout": "0.1"}
        answer = await own.post("/api/fail", json={"hang": True}, headers=headers)

        assert answer.status_code == 504
        assert answer.json()["reason"] == "DEADLINE_EXCEEDED"
        await echo.cancelled.wait()


class TestCodings:
    async def raw(self, url: Client, length: int, accept: str | None) -> tuple[Any, bytes]:
        headers = {} if accept is None else {"accept-encoding": accept}
        request = url.build_request("GET", f"/api/things/1?name_length={length}", headers=headers)
        if accept is None:
            request.headers.pop("accept-encoding", None)
        answer = await url.send(request, stream=True)
        body = b"".join([part async for part in answer.aiter_raw()])
        await answer.aclose()
        return answer, body

    @pytest.mark.parametrize(
        ("accept", "coding"),
        [
            ("br", "br"),
            ("gzip", "gzip"),
            ("gzip, deflate, br", "br"),
            ("br;q=0.5, gzip", "gzip"),
            ("BR;Q=1", "br"),
            ("*", "br"),
            ("*;q=0.1, br;q=0", "gzip"),
            ("identity", None),
            ("br;q=0", None),
            ("br;q=x", None),
            ("", None),
            (None, None),
        ],
    )
    async def test_the_clients_best(
        self, echoed: Client, accept: str | None, coding: str | None
    ) -> None:
        answer, body = await self.raw(echoed, 5_000, accept)

        assert answer.headers.get("content-encoding") == coding
        assert "accept-encoding" in answer.headers["vary"].lower()
        assert int(answer.headers["content-length"]) == len(body)
        plain = {"br": brotli.decompress, "gzip": gzip.decompress}.get(coding or "", bytes)(body)
        assert len(plain) > 5_000
        assert (len(body) < 500) == (coding is not None)

    async def test_small_bodies_stay(self, echoed: Client) -> None:
        answer, _ = await self.raw(echoed, 10, "br")

        assert "content-encoding" not in answer.headers

    async def test_each_coding_has_its_own_tag(self, echoed: Client) -> None:
        tags = {
            (await self.raw(echoed, 5_000, accept))[0].headers["etag"] for accept in ("br", "gzip")
        }

        assert len(tags) == 2


class TestRawBodies:
    async def test_whoever_checks_a_signature_gets_every_header(
        self, own: Client, echo: Echo
    ) -> None:
        headers = {
            b"Stripe-Signature": b"t=1,v1=ab",
            b"Authorization": b"Bearer secret",
            b"Cookie": b"secret",
            b"X-Odd": "\u00e9".encode("latin-1"),
            b"X-Raw-Bin": b"x",
        }

        answer = await own.post("/api/hooks/stripe", content=b"{}", headers=headers)

        assert answer.status_code == 200
        passed = {name: value for name, value in echo.metadata if name.startswith("http-")}
        assert passed["http-stripe-signature"] == "t=1,v1=ab"
        assert "secret" not in passed.values()
        assert not {"http-x-odd", "http-x-raw-bin"} & passed.keys()

    async def test_they_are_bounded(self, own: Client, echo: Echo) -> None:
        headers = {"x-first": "1", "x-much": "m" * 9_000}
        answer = await own.post("/api/hooks/stripe", content=b"{}", headers=headers)

        assert answer.status_code == 200
        assert "http-x-much" not in dict(echo.metadata)

    async def test_others_get_none(self, echoed: Client) -> None:
        _, metadata = await told(echoed, **{"stripe-signature": "x"})

        assert not [name for name in metadata if name.startswith("http-")]
