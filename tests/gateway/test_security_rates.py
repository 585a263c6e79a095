"""How often a client may call, and who a client is."""

import json
from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.security import SecuritySettings, secured
from gateway.security.gcra import BURST_SECONDS, Limiter
from tests.gateway.security_host import Answer, EchoApp, call

SECONDS_PER_YEAR = 31_536_000.0


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = SECONDS_PER_YEAR

    def __call__(self) -> float:
        return self.now


class Limited:
    """An application that takes one request a second, or what the settings say."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.inner = EchoApp()
        values: dict[str, Any] = {"rate_per_second": 1.0, "key_rate_per_second": 0.0, **settings}
        self.app = secured(self.inner, SecuritySettings(**values), self.clock)

    async def get(self, path: str = "/", **given: Any) -> Answer:
        return await call(self.app, path, **given)

    async def exhaust(self, **given: Any) -> None:
        for _ in range(BURST_SECONDS):
            assert (await self.get(**given)).status == 200
        assert (await self.get(**given)).status == 429


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class TestGcra:
    @given(
        per_second=st.sampled_from([0.5, 1.0, 7.0, 100.0]),
        pauses=st.lists(st.floats(0, 3), max_size=200),
    )
    def test_never_takes_more_than_the_rate_and_a_burst(
        self, per_second: float, pauses: list[float]
    ) -> None:
        clock = Clock()
        limiter = Limiter(per_second, clock)
        began = clock.now
        taken = 0
        for pause in pauses:
            clock.now += pause
            taken += limiter.take(b"key").taken
            assert taken <= limiter.burst + (clock.now - began) * per_second + 1e-3

    @given(per_second=st.sampled_from([0.5, 1.0, 7.0]), requests=st.integers(1, 80))
    def test_who_waits_as_told_is_taken(self, per_second: float, requests: int) -> None:
        clock = Clock()
        limiter = Limiter(per_second, clock)
        for _ in range(requests):
            decision = limiter.take(b"key")
        clock.now += decision.retry_after_seconds
        assert decision.taken or limiter.take(b"key").taken

    def test_counts_down_and_tells_when_all_is_there_again(self) -> None:
        clock = Clock()
        limiter = Limiter(1, clock)

        told = [limiter.take(b"key") for _ in range(BURST_SECONDS + 1)]

        assert [each.remaining for each in told] == [3, 2, 1, 0, 0]
        assert [each.reset_seconds for each in told] == [1, 2, 3, 4, 4]
        assert [each.retry_after_seconds for each in told] == [0, 0, 0, 0, 1]

    def test_forgets_the_key_unseen_for_longest(self) -> None:
        limiter = Limiter(1, Clock(), max_keys=2)
        for _ in range(BURST_SECONDS):
            limiter.take(b"old")
        limiter.take(b"seen")
        assert not limiter.take(b"old").taken

        limiter.take(b"new")

        assert len(limiter) == 2
        assert not limiter.take(b"old").taken
        assert limiter.take(b"seen").remaining == BURST_SECONDS - 1


class TestLimit:
    async def test_a_refusal_says_why_and_when_to_come_again(self) -> None:
        limited = Limited()
        await limited.exhaust()

        answer = await limited.get()

        problem = json.loads(answer.body)
        assert problem["reason"] == "RATE_LIMITED"
        assert problem["metadata"] == {"limited": "address"}
        assert answer.header("retry-after") == "1"
        assert answer.header("ratelimit-policy") == '"address";q=4;w=4'
        assert answer.header("ratelimit") == '"address";r=0;t=4'
        assert answer.header("x-content-type-options") == "nosniff"
        assert len(limited.inner.seen.paths) == BURST_SECONDS

    async def test_ends_with_time(self) -> None:
        limited = Limited()
        await limited.exhaust()

        limited.clock.now += 1

        assert (await limited.get()).status == 200
        assert (await limited.get()).status == 429

    async def test_is_of_each_address(self) -> None:
        limited = Limited()
        await limited.exhaust(client="192.0.2.1")

        assert (await limited.get(client="192.0.2.2")).status == 200

    async def test_a_network_of_ipv6_is_one_client(self) -> None:
        limited = Limited()
        await limited.exhaust(client="2001:db8::1")

        assert (await limited.get(client="2001:db8::2:3")).status == 429
        assert (await limited.get(client="2001:db8:0:1::1")).status == 200

    async def test_is_of_each_key_wherever_it_calls_from(self) -> None:
        limited = Limited(rate_per_second=0.0, key_rate_per_second=1.0)
        await limited.exhaust(headers=bearer("one"), client="192.0.2.1")

        elsewhere = await limited.get(headers=bearer("one"), client="192.0.2.9")

        assert elsewhere.status == 429
        assert json.loads(elsewhere.body)["metadata"] == {"limited": "key"}
        assert (await limited.get(headers=bearer("two"))).status == 200
        assert (await limited.get()).status == 200

    async def test_made_up_keys_cost_their_sender(self) -> None:
        limited = Limited(key_rate_per_second=1.0)
        for number in range(BURST_SECONDS):
            await limited.get(headers=bearer(f"guess {number}"))

        assert (await limited.get(headers=bearer("another guess"))).status == 429

    async def test_the_tighter_limit_is_told(self) -> None:
        limited = Limited(rate_per_second=10.0, key_rate_per_second=1.0)

        answer = await limited.get(headers=bearer("one"))

        assert answer.header("ratelimit") == '"key";r=3;t=1'

    async def test_leaves_health_alone(self) -> None:
        limited = Limited()
        await limited.exhaust()

        assert (await limited.get("/healthz")).status == 200
        assert (await limited.get("/readyz")).status == 200

    async def test_may_be_off(self) -> None:
        limited = Limited(rate_per_second=0.0)

        for _ in range(20):
            answer = await limited.get()
            assert answer.status == 200
            assert answer.header("ratelimit") is None


class TestProxies:
    async def test_nobody_is_believed_by_default(self) -> None:
        limited = Limited()
        await limited.exhaust(headers={"x-forwarded-for": "198.51.100.1"})

        answer = await limited.get(headers={"x-forwarded-for": "198.51.100.2"})

        assert answer.status == 429
        assert set(limited.inner.seen.clients) == {"192.0.2.1"}

    async def test_the_nearest_hop_that_is_not_trusted_is_the_client(self) -> None:
        limited = Limited(trusted_proxies=(ip_network("10.0.0.0/8"),))

        await limited.get(
            client="10.0.0.1", headers={"x-forwarded-for": "203.0.113.66, 198.51.100.7, 10.0.0.9"}
        )

        assert limited.inner.seen.clients == ["198.51.100.7"]

    async def test_what_is_no_address_ends_the_search(self) -> None:
        limited = Limited(trusted_proxies=(ip_network("10.0.0.0/8"),))

        for forwarded in ("", "unknown", "198.51.100.7, <script>", "198.51.100.7, _hidden"):
            await limited.get(client="10.0.0.1", headers={"x-forwarded-for": forwarded})
            limited.clock.now += BURST_SECONDS

        assert set(limited.inner.seen.clients) == {"10.0.0.1"}

    async def test_a_trusted_proxy_tells_the_scheme(self) -> None:
        limited = Limited(trusted_proxies=(ip_network("10.0.0.0/8"),))
        secure = {"x-forwarded-proto": "https"}

        believed = await limited.get(client="10.0.0.1", headers=secure)
        stranger = await limited.get(client="192.0.2.1", headers=secure)

        assert believed.header("strict-transport-security") is not None
        assert stranger.header("strict-transport-security") is None

    async def test_ipv4_within_ipv6_is_the_same_client(self) -> None:
        limited = Limited(trusted_proxies=(ip_network("10.0.0.0/8"),))

        await limited.get(client="::ffff:10.0.0.1", headers={"x-forwarded-for": "198.51.100.7"})

        assert limited.inner.seen.clients == ["198.51.100.7"]
