"""A page in a real browser: it calls with a key, and hears of a wallet while servers die."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from zaaz.auth.v1 import auth_service_pb2

from gateway.security import SecuritySettings
from tests.gateway.browser import Origin, origin, showing
from tests.gateway.mortals import gateway
from tests.run.command import Command, free_port
from tests.run.processes import until
from tests.serving import Served, new_key

PATIENCE_SECONDS = 60.0
PAGE = """<!doctype html><meta charset="utf-8"><script>
const {api, key, user, ttl} = CONFIG;
const headers = {authorization: `Bearer ${key}`, "content-type": "application/json"};
let told = Promise.resolve();
const report = (what) => {
  told = told.then(() => fetch("/", {method: "POST", body: JSON.stringify(what)}));
};

async function ticket() {
  const body = {method: "zaaz.wallet.v1.WalletService/WatchWallet", request: {user_id: user},
                ttl_seconds: ttl};
  const answer = await fetch(`${api}/api/auth/stream-tickets`,
                             {method: "POST", headers, body: JSON.stringify(body)});
  return (await answer.json()).ticket;
}

let last = "";
async function watch() {
  const query = new URLSearchParams({ticket: await ticket(), resume_token: last});
  const source = new EventSource(`${api}/api/user-wallets/${user}/watch?${query}`);
  source.onopen = () => report({name: "open"});
  source.onerror = (event) => {
    report({name: "error", state: source.readyState, data: event.data});
    if (source.readyState === EventSource.CLOSED) watch();
  };
  for (const name of ["snapshot", "change", "bookmark"])
    source.addEventListener(name, (event) => {
      last = event.lastEventId;
      report({name, data: JSON.parse(event.data)});
    });
}

async function start() {
  const answer = await fetch(`${api}/api/user-wallets/${user}`, {headers});
  report({name: "wallet", status: answer.status, data: await answer.json(),
          id: answer.headers.get("x-request-id")});
  await watch();
}
start().catch((error) => report({name: "failure", data: String(error)}));
</script>"""


class Known:
    """What the page has told of its wallet."""

    def __init__(self, page: Origin) -> None:
        self._page = page

    def named(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self._page.reports if each["name"] == name]

    @property
    def sequence(self) -> int:
        """Of the last transaction, with every one before it told exactly once."""
        sequence = 0
        for report in self._page.reports:
            if report["name"] == "snapshot":
                assert not sequence, "it begins once"
                sequence = int(report["data"]["snapshot"]["sequence"])
            elif report["name"] == "change":
                change = report["data"]["change"]
                assert int(change["first_sequence"]) == sequence + 1
                sequence = int(change["sequence"])
        return sequence

    async def reaches(self, sequence: int) -> None:
        """Returns once it knows this transaction."""
        try:
            await until(lambda: self.sequence >= sequence, PATIENCE_SECONDS)
        except TimeoutError:
            raise AssertionError(self._page.reports) from None


async def test_a_page_misses_nothing(served: Served, mortal: Command, tmp_path: Path) -> None:
    user_id = await served.new_wallet(1_000)
    key = await served.auth.CreateApiKey(
        auth_service_pb2.CreateApiKeyRequest(
            request_id=new_key(), client_id="partner", scopes=["wallet.read"]
        )
    )
    port = free_port()
    config = {"api": f"http://127.0.0.1:{port}", "key": key.key, "user": user_id, "ttl": 0}
    async with origin(PAGE.replace("CONFIG", json.dumps(config))) as page:
        security = SecuritySettings(cors_origins=(page.url,))
        known = Known(page)
        target = mortal.ready["grpc"]
        async with gateway(target, port, security), showing(page.url, tmp_path):
            await known.reaches(1)
            await served.consume(user_id, 1)
            await known.reaches(2)

            await mortal.kill()
            await served.consume(user_id, 1)
            await mortal.start()
            await known.reaches(3)
            await asyncio.gather(*(served.consume(user_id, 1) for _ in range(20)))
            await known.reaches(23)

    [wallet] = known.named("wallet")
    assert wallet["status"] == 200
    assert wallet["data"]["wallet"]["credits_micros"] == "1000"
    assert wallet["id"]
    assert len(known.named("snapshot")) == 1
    assert len(known.named("open")) >= 2
    assert all(each["state"] == 0 for each in known.named("error")), "it never gave up"
    assert not known.named("failure")


async def test_a_page_survives_its_gateway_and_its_ticket(served: Served, tmp_path: Path) -> None:
    """EventSource gives up then, and the page goes on with another ticket where it was."""
    user_id = await served.new_wallet(1_000)
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    config = {"api": api, "key": served.api_key, "user": user_id, "ttl": 1}
    async with origin(PAGE.replace("CONFIG", json.dumps(config))) as page:
        security = SecuritySettings(cors_origins=(page.url,))
        known = Known(page)
        async with AsyncExitStack() as stack:
            async with gateway(served.target, port, security):
                await stack.enter_async_context(showing(page.url, tmp_path))
                await known.reaches(1)
            await served.consume(user_id, 1)
            async with gateway(served.target, port, security):
                await known.reaches(2)

    assert len(known.named("snapshot")) == 1
    # 0: it will connect again; 2: it has given up, since it was refused.
    assert {each["state"] for each in known.named("error")} == {0, 2}
