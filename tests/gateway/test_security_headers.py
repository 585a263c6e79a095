"""Headers on every answer, and what a page of another origin may do."""

import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.security import SecuritySettings, secured
from tests.gateway.security_host import EchoApp, call

ORIGIN = "https://app.example"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST"}


def behind(**settings: Any) -> tuple[EchoApp, ASGIApp]:
    app = EchoApp()
    return app, secured(app, SecuritySettings(**settings))


@pytest.mark.parametrize("path", ["/", "/fails"])
async def test_every_answer_bears_the_strict_headers(path: str) -> None:
    _, app = behind()

    answer = await call(app, path)

    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("cross-origin-resource-policy") == "same-origin"
    assert answer.header("cross-origin-opener-policy") == "same-origin"
    policy = answer.header("content-security-policy") or ""
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.header("server") is None


@pytest.mark.parametrize(("scheme", "told"), [("http", False), ("https", True)])
async def test_browsers_are_held_to_tls_only_over_tls(scheme: str, *, told: bool) -> None:
    _, app = behind()

    answer = await call(app, scheme=scheme)

    assert (answer.header("strict-transport-security") is not None) == told


async def test_what_a_page_says_of_itself_stands() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-security-policy", b"script-src 'self'"),
            (b"cache-control", b"public"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = await call(secured(page, SecuritySettings()))

    assert [value for name, value in answer.headers if name == "content-security-policy"] == [
        "script-src 'self'"
    ]
    assert answer.header("cache-control") == "public"


async def test_a_failure_tells_an_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    _, app = behind(cors_origins=(ORIGIN,))

    answer = await call(app, "/fails", headers={"origin": ORIGIN})

    problem = json.loads(answer.body)
    assert answer.status == problem["status"] == 500
    assert answer.header("content-type") == "application/problem+json"
    assert problem["reason"] == "INTERNAL"
    assert b"secret" not in answer.body
    assert answer.header("access-control-allow-origin") == ORIGIN
    [line] = [record for record in caplog.records if record.message == "a request failed"]
    assert vars(line)["fields"]["error_id"] == problem["metadata"]["error_id"]


class TestCors:
    async def test_no_origin_is_allowed_by_default(self) -> None:
        _, app = behind()

        answer = await call(app, headers={"origin": ORIGIN})
        preflight = await call(app, method="OPTIONS", headers=PREFLIGHT)

        assert answer.status == 200
        assert answer.header("access-control-allow-origin") is None
        assert answer.header("vary") == "Origin"
        assert preflight.status == 403
        assert json.loads(preflight.body)["reason"] == "ORIGIN_NOT_ALLOWED"
        assert preflight.header("access-control-allow-origin") is None

    async def test_a_listed_origin_may_call_and_read(self) -> None:
        _, app = behind(cors_origins=(ORIGIN,))

        answer = await call(app, headers={"origin": ORIGIN})

        assert answer.header("access-control-allow-origin") == ORIGIN
        assert answer.header("vary") == "Origin"
        exposed = answer.header("access-control-expose-headers") or ""
        assert {"etag", "retry-after", "x-request-id", "idempotency-key"} <= set(
            exposed.split(", ")
        )
        assert answer.header("access-control-allow-credentials") is None

    async def test_a_preflight_never_reaches_the_application(self) -> None:
        inner, app = behind(cors_origins=(ORIGIN,))

        answer = await call(app, method="OPTIONS", headers=PREFLIGHT)

        assert answer.status == 204
        assert answer.header("access-control-allow-origin") == ORIGIN
        allowed = (answer.header("access-control-allow-headers") or "").split(", ")
        assert {"authorization", "content-type", "idempotency-key", "if-match"} <= set(allowed)
        assert {"if-none-match", "last-event-id", "traceparent", "x-request-id"} <= set(allowed)
        assert "PATCH" in (answer.header("access-control-allow-methods") or "")
        assert inner.seen.paths == []

    @pytest.mark.parametrize(
        "origin",
        [
            "https://app.example.evil.test",
            "https://evil-app.example",
            "http://app.example",
            "https://app.example:8443",
            "https://sub.app.example",
            "null",
            "",
        ],
    )
    async def test_what_only_looks_like_a_listed_origin_is_not(self, origin: str) -> None:
        _, app = behind(cors_origins=(ORIGIN,))

        answer = await call(app, headers={"origin": origin})

        assert answer.header("access-control-allow-origin") is None

    async def test_any_origin_may_be_allowed_and_never_with_credentials(self) -> None:
        _, app = behind(cors_origins=("*",))

        answer = await call(app, headers={"origin": ORIGIN})

        assert answer.header("access-control-allow-origin") == "*"
        assert answer.header("access-control-allow-credentials") is None


class TestSettings:
    def test_are_read_from_the_environment(self) -> None:
        settings = SecuritySettings.from_environment(
            {
                "ZAAZ_REST_CORS_ORIGINS": "https://a.example, http://localhost:5173",
                "ZAAZ_REST_TRUSTED_PROXIES": "10.0.0.0/8 ::1",
                "ZAAZ_REST_RATE_PER_SECOND": "2.5",
                "ZAAZ_REST_MAX_BODY_BYTES": "1000",
                "ZAAZ_GRPC_ADDRESS": "another's",
            }
        )

        assert settings.cors_origins == ("https://a.example", "http://localhost:5173")
        assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
        assert settings.rate_per_second == 2.5
        assert settings.max_body_bytes == 1000

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("ZAAZ_REST_CORS_ORIGINS", "app.example"),
            ("ZAAZ_REST_CORS_ORIGINS", "https://app.example/"),
            ("ZAAZ_REST_CORS_ORIGINS", "https://App.example"),
            ("ZAAZ_REST_CORS_ORIGINS", "https://"),
            ("ZAAZ_REST_CORS_ORIGINS", "null"),
            ("ZAAZ_REST_CORS_ORIGINS", "https://user@app.example"),
            ("ZAAZ_REST_CORS_ORIGINS", "* https://app.example"),
            ("ZAAZ_REST_TRUSTED_PROXIES", "10.0.0.1/8"),
            ("ZAAZ_REST_TRUSTED_PROXIES", "proxy.internal"),
            ("ZAAZ_REST_RATE_PER_SECOND", "-1"),
            ("ZAAZ_REST_RATE_PER_SECOND", "nan"),
            ("ZAAZ_REST_KEY_RATE_PER_SECOND", "many"),
            ("ZAAZ_REST_MAX_BODY_BYTES", "0"),
            ("ZAAZ_REST_MAX_CONNECTIONS", "1.5"),
        ],
    )
    def test_wrong_ones_are_named(self, name: str, text: str) -> None:
        with pytest.raises(ValueError, match=name):
            SecuritySettings.from_environment({name: text})
