"""Ctrl-C in the middle of a metered stream: a real signal to a process of its own."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE

import pytest
from zaaz_client.adapters import UsageFigures

from tests.client.adapters import wire
from tests.client.adapters.conftest import bills
from tests.client.adapters.vendor import Vendor
from tests.ledger.calls import soon
from tests.serving import MODEL, Served, new_key

INTERRUPTED = """
import sys
from openai import OpenAI
from zaaz_client.adapters import UsageFigures
from zaaz_client.adapters.blocking import ProcessBilling, StreamBilling
from zaaz_client.adapters.blocking.openai import metered
from zaaz_client.blocking import BlockingZaazClient

target, key, user, url, writer, way = sys.argv[1:]


def estimate(unknown):
    return UsageFigures(input_tokens=7, output_tokens=len(unknown.text))


def paying(client):
    if way == "event":
        return client.usage_stream(writer)
    return client.credit_process(
        user, ai_model="openai/gpt-4o-mini", max_input_tokens=100, max_output_tokens=100
    )


with BlockingZaazClient(target, key) as client, paying(client) as paid:
    billing = StreamBilling(paid, user) if way == "event" else ProcessBilling(paid)
    with OpenAI(base_url=url, api_key="sk-none") as openai:
        with metered(openai, billing, on_unknown_usage=estimate) as llm:
            asked = [{"role": "user", "content": "What is it?"}]
            stream = llm.chat.completions.create(model="gpt-4o-mini", messages=asked, stream=True)
            for chunk in stream:
                print(chunk.choices[0].delta.content, flush=True)
"""


@pytest.mark.parametrize("way", ["event", "process"])
async def test_what_has_come_is_billed(
    served: Served, vendor: Vendor, user_id: str, way: str
) -> None:
    vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
    words = (served.target, served.api_key, user_id, f"{vendor.url}/v1", new_key(), way)
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INTERRUPTED, *words, stdout=PIPE, stderr=PIPE
    )
    assert run.stdout is not None
    for word in (b"\n", b"For\n", b"ty\n"):
        assert await soon(run.stdout.readline()) == word
    run.send_signal(signal.SIGINT)
    _, err = await soon(run.communicate())
    assert err.decode().splitlines()[-1] == "KeyboardInterrupt"
    broken = UsageFigures(input_tokens=7, output_tokens=len("Forty"))
    assert await bills(served, user_id) == [(MODEL, broken)]
