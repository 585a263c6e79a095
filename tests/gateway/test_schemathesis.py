"""The whole REST API against what /openapi.json says of it, by schemathesis.

Requests keep the schemas: the decoder's own tests break them, one by one and with
the field that has to be named. (proto3 JSON takes more than a schema says, so that
"whatever the schema refuses is refused" would be wrong.)
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from tests.serving import Served

EXAMPLES = 2
"""Made up for each operation, beside the document's own."""

HEADERS_TESTED_ELSEWHERE = {"Idempotency-Key", "If-Match", "X-Request-Timeout"}
"""Made up, they contradict the body's request_id and etag, or end in 504: rightly."""

BEYOND_A_SCHEMA = {
    *("ai_model", "usage_key", "ttl", "method"),
    *("coupon.discount_ppm", "coupon.fixed_amount", "coupon.credits_micros", "coupon.credits_days"),
}
"""Fields that go by another's absence or value, or by a length of time, or that name a stream.
Times (`*time`) must lie before or after another, which a schema cannot say either."""

MADE_UP_IN_VAIN = {
    # Amounts that are each in range add up to none.
    "AMOUNT_OUT_OF_RANGE",
    "EXPAND_INVALID",
    "FIELD_IMMUTABLE",
    "FILTER_INVALID",
    "FRAME_SIZE_INVALID",
    "OCCURRED_TIME_OUT_OF_RANGE",
    "ORDER_BY_INVALID",
    "PAGE_TOKEN_INVALID",
    "UPDATE_MASK_INVALID",
}
"""Reasons for what no rule of the contract says: the language of a text, what may change."""

ENDLESS = "text/event-stream"
"""What answers so does not end by itself: test_sse reads it."""

ACCEPTED = ["2xx", "304", "401", "403", "404", "409", "412", "429", "5xx"]
"""What may come of a request that keeps its schema. (5xx is a finding of its own.)"""


@dataclass
class Finding:
    """A check that failed, and the exchange in which it did."""

    operation: str
    check: str
    message: str
    request: str
    answer: str

    def is_expected(self) -> bool:
        problem = as_problem(self.answer)
        reason = problem.get("reason")
        if self.check != "positive_data_acceptance":
            return False
        fields = {each["field"] for each in problem.get("violations", ())}
        beyond = (is_beyond(field) or is_cleared(field, self.request) for field in fields)
        return reason in MADE_UP_IN_VAIN or bool(fields and all(beyond))


def is_beyond(field: str) -> bool:
    names = {field, field.rpartition(".")[2]}
    return bool(names & BEYOND_A_SCHEMA) or field.endswith("time")


def is_cleared(field: str, request: str) -> bool:
    """The mask names it and the body has none: it would become empty. No schema rules that out."""
    name = field.rpartition(".")[2]
    _, uri, body = request.split(" ", 2)
    mask = parse_qs(urlsplit(uri).query).get("update_mask", [""])[0]
    return name in mask.split(",") and f'"{name}"' not in body


def as_problem(answer: str) -> dict[str, Any]:
    try:
        loaded = json.loads(answer)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


@pytest.fixture
async def document(rest: httpx2.AsyncClient) -> dict[str, Any]:
    """As it is served, less what is not to be made up."""
    served: dict[str, Any] = (await rest.get("/openapi.json")).json()
    references = {f"#/components/parameters/{name}" for name in HEADERS_TESTED_ELSEWHERE}
    for path in served["paths"].values():
        for verb, operation in list(path.items()):
            if ENDLESS in operation["responses"]["200"].get("content", {}):
                del path[verb]
                continue
            operation["parameters"] = [
                each for each in operation["parameters"] if each.get("$ref") not in references
            ]
    served["paths"] = {path: verbs for path, verbs in served["paths"].items() if verbs}
    return served


async def test_the_api_is_as_its_description(
    rest: httpx2.AsyncClient, served: Served, document: dict[str, Any]
) -> None:
    # In a thread: it blocks, and the server lives on this loop.
    found = await asyncio.to_thread(explore, document, str(rest.base_url), served.api_key)

    unexpected = [str(each) for each in found if not each.is_expected()]
    assert not unexpected, "\n\n".join(unexpected)


def explore(document: dict[str, Any], url: str, api_key: str) -> list[Finding]:
    """Every failed check of one run."""
    config = SchemathesisConfig.from_dict(
        {
            "base-url": url,
            "headers": {"Authorization": f"Bearer {api_key}"},
            "request-timeout": 20.0,
            "continue-on-failure": True,
            "seed": 1,
            "generation": {
                "mode": "positive",
                "max-examples": EXAMPLES,
                "no-shrink": True,
                "database": "none",
            },
            "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
            "phases": {"coverage": {"enabled": False}, "stateful": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    found: list[Finding] = []
    tested = set()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            tested.add(event.recorder.label)
            found += findings(event)
    assert len(tested) >= sum(len(path) for path in document["paths"].values())
    return found


def findings(event: events.ScenarioFinished) -> Iterator[Finding]:
    recorder = event.recorder
    for case_id, checks in recorder.checks.items():
        exchange = recorder.interactions[case_id]
        request, response = exchange.request, exchange.response
        sent = f"{request.method} {request.uri} {request.body!r}"
        answer = (response.content or b"").decode(errors="replace") if response else ""
        for check in checks:
            if check.failure_info is not None:
                message = check.failure_info.failure.message
                yield Finding(recorder.label, check.name, message, sent, answer)
