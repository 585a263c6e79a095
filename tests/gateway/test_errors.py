"""Refusals over HTTP: their shape, their status, and what never goes out."""

import base64
from typing import Any

import grpc
import httpx2
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from gateway.refusals import HTTP_STATUS
from tests.gateway.echo import client_of, gateway_to
from tests.serving import new_key, new_user

Client = httpx2.AsyncClient
PROBLEM = "application/problem+json"


def status_bytes(code: int, *details: Any) -> bytes:
    status = status_pb2.Status(code=code, message="said the server")
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return bytes(status.SerializeToString())


async def failed(echoed: Client, **fields: Any) -> httpx2.Response:

    if "status" in fields:
        fields["status"] = base64.b64encode(fields["status"]).decode()
    return await echoed.post("/api/fail", json=fields)


def test_every_code_has_a_status() -> None:
    assert HTTP_STATUS.keys() == set(grpc.StatusCode)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
async def test_statuses(echoed: Client, code: grpc.StatusCode) -> None:
    info = error_details_pb2.ErrorInfo(reason="WALLET_NOT_FOUND", metadata={"a": "b"})
    raw = status_bytes(code.value[0], info)

    answer = await failed(echoed, code=code.value[0], message="said the server", status=raw)

    assert answer.status_code == HTTP_STATUS[code]
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["reason"] == "WALLET_NOT_FOUND"
    assert problem["metadata"] == {"a": "b"}
    assert problem["detail"] == "said the server"
    assert problem["type"] == "about:blank"
    assert problem["title"]


async def test_violations_and_retry(echoed: Client) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="a.b", description="must be more")
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=250_000_000))
    info = error_details_pb2.ErrorInfo(reason="CONTENTION")

    answer = await failed(echoed, code=10, message="m", status=status_bytes(10, info, bad, retry))

    assert answer.json()["violations"] == [{"field": "a.b", "description": "must be more"}]
    assert answer.json()["retry_delay"] == "0.25s"
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(("reason", "status"), [("ETAG_MISMATCH", 412), ("MESSAGE_TOO_LARGE", 413)])
async def test_where_http_has_its_own_word(echoed: Client, reason: str, status: int) -> None:
    raw = status_bytes(10, error_details_pb2.ErrorInfo(reason=reason))

    answer = await failed(echoed, code=10, message="m", status=raw)

    assert answer.status_code == answer.json()["status"] == status


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (14, "DEPENDENCY_UNAVAILABLE"),
        (4, "DEADLINE_EXCEEDED"),
        (12, "METHOD_UNIMPLEMENTED"),
        (8, "OVERLOADED"),
        (13, "INTERNAL"),
        (2, "INTERNAL"),
    ],
)
async def test_what_grpc_itself_says_stays_inside(echoed: Client, code: int, reason: str) -> None:
    answer = await failed(echoed, code=code, message="ipv4:10.0.0.7:50051 secret")

    assert answer.json()["reason"] == reason
    assert "10.0.0.7" not in answer.text


async def test_details_that_are_no_details(echoed: Client) -> None:
    answer = await failed(echoed, code=13, message="m", status=b"\xff\xff\xff")

    assert answer.status_code == 500
    assert answer.json()["reason"] == "INTERNAL"


async def test_a_handler_that_breaks(echoed: Client) -> None:
    answer = await failed(echoed, code=99, message="m")

    assert answer.status_code == 500
    assert answer.json()["reason"] == "INTERNAL"
    assert "StopIteration" not in answer.text


async def test_a_server_that_is_not_there() -> None:
    async with gateway_to("127.0.0.1:1") as url, client_of(url) as client:
        answer = await client.get("/api/things")
        health, ready = await client.get("/healthz"), await client.get("/readyz")

    for each in (answer, ready):
        assert each.status_code == 503
        assert each.json()["reason"] == "DEPENDENCY_UNAVAILABLE"
        assert each.json()["metadata"] == {"dependency": "server"}
        assert each.headers["retry-after"] == "1"
    assert health.status_code == 200


async def test_no_credentials(rest: Client) -> None:
    async with client_of(str(rest.base_url)) as anonymous:
        answer = await anonymous.get("/api/user-wallets")

    assert answer.status_code == 401
    assert answer.json()["reason"] == "CREDENTIALS_MISSING"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("value", ["Bearer nonsense", "Basic eDp5"])
async def test_wrong_credentials(rest: Client, value: str) -> None:
    answer = await rest.get("/api/user-wallets", headers={"authorization": value})

    assert answer.status_code == 401


async def test_credentials_that_are_no_text(rest: Client) -> None:
    headers = {b"authorization": "Bearer ü".encode("latin-1")}
    answer = await rest.get("/api/user-wallets", headers=headers)

    assert answer.status_code == 400
    assert answer.json()["metadata"] == {"field": "authorization"}


async def test_the_servers_own_refusals(rest: Client) -> None:
    missing = await rest.get(f"/api/user-wallets/{new_user()}")
    assert missing.status_code == 404
    assert missing.json()["reason"] == "WALLET_NOT_FOUND"

    malformed = await rest.get("/api/user-wallets/bulk")
    assert malformed.status_code == 400
    assert malformed.json()["violations"][0]["field"] == "user_id"

    short = {"user_id": new_user(), "credits_micros": "1", "request_id": new_key()}
    await rest.post("/api/user-wallets", json={"user_id": short["user_id"]})
    refused = await rest.post("/api/credits-process/consume", json=short)
    assert refused.status_code == 409
    assert refused.json()["reason"] == "INSUFFICIENT_CREDITS"
    assert refused.json()["metadata"]["shortfall_micros"] == "1"


async def test_bodies_past_the_bound(echoed: Client) -> None:
    body = b'{"text": "' + b"x" * 4 * 1024 * 1024 + b'"}'
    headers = {"content-type": "application/json"}
    answer = await echoed.post("/api/everything", content=body, headers=headers)

    assert answer.status_code == 413
    assert answer.json()["reason"] == "MESSAGE_TOO_LARGE"
