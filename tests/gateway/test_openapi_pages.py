"""/openapi.json and /docs as they are served, behind the guards of browsers."""

import gzip
import json
import re

import brotli
import pytest

from gateway.openapi import pages
from gateway.openapi.assets import Asset
from gateway.security import SecuritySettings, secured
from tests.gateway.openapi_host import DOCUMENT, ROUTES
from tests.gateway.security_host import Answer, call

PAGES = pages(ROUTES)


async def get(path: str, method: str = "GET", **headers: str) -> Answer:
    app = secured(PAGES[path], SecuritySettings())
    return await call(
        app, path, method, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def test_the_document_is_served_as_it_is_made() -> None:
    answer = await get("/openapi.json")

    assert answer.header("content-type") == "application/json"
    assert json.loads(answer.body) == DOCUMENT
    assert answer.header("content-length") == str(len(answer.body))


async def test_a_coding_has_a_tag_of_its_own() -> None:
    plain = await get("/openapi.json")
    zipped = await get("/openapi.json", accept_encoding="gzip")
    better = await get("/openapi.json", accept_encoding="gzip, br")

    assert gzip.decompress(zipped.body) == plain.body
    assert brotli.decompress(better.body) == plain.body
    assert zipped.header("content-encoding") == "gzip"
    assert "Accept-Encoding" in (zipped.header("vary") or "")
    assert len({each.header("etag") for each in (plain, zipped, better)}) == 3


async def test_who_has_it_is_not_sent_it_again() -> None:
    tag = (await get("/openapi.json")).header("etag") or ""

    again = await get("/openapi.json", if_none_match=tag)

    assert (again.status, again.body) == (304, b"")
    assert again.header("etag") == tag
    assert (await get("/openapi.json", if_none_match='"other"')).status == 200


async def test_only_reading_is_possible() -> None:
    head = await get("/docs", "HEAD")
    written = await get("/docs", "POST")

    assert (head.status, head.body) == (200, b"")
    assert int(head.header("content-length") or 0) > 0
    assert written.status == 405
    assert written.header("allow") == "GET, HEAD"


async def test_the_page_names_only_files_that_are_served_here() -> None:
    html = (await get("/docs")).body.decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', html)

    assert len(named) == 4
    assert all(f"/{name}" in PAGES for name in named)
    assert "<script>" not in html
    assert "style=" not in html


async def test_the_page_runs_no_inline_script() -> None:
    policy = (await get("/docs")).header("content-security-policy") or ""
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))

    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    assert directives["connect-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"


@pytest.mark.parametrize(
    ("path", "content_type", "text"),
    [
        ("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8", b"SwaggerUIBundle"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8", b".swagger-ui"),
        ("/docs/start.js", "text/javascript; charset=utf-8", b"openapi.json"),
        ("/docs/favicon-32x32.png", "image/png", b"PNG"),
    ],
)
async def test_assets_come_from_the_package(path: str, content_type: str, text: bytes) -> None:
    answer = await get(path)

    assert answer.status == 200
    assert answer.header("content-type") == content_type
    assert answer.header("x-content-type-options") == "nosniff"
    assert text in answer.body


async def test_bytes_are_made_once_and_only_when_asked_for() -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return b"bytes"

    asset = Asset(make, "text/plain")
    assert made == []

    answers = [await call(asset) for _ in range(3)]

    assert [answer.body for answer in answers] == [b"bytes"] * 3
    assert made == [1]
