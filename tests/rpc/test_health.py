"""Whether the server should be sent calls."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.rpc.edge import SERVICE, Options, Running, echo, failure, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Dependency:
    """Something that is there or not."""

    def __init__(self, *, is_there: bool) -> None:
        self.is_there = is_there

    async def check(self) -> bool:
        return self.is_there


def checked(check: Callable[[], Awaitable[bool]]) -> Options:
    return Options(server={"check": check})


async def ask(server: Running, service: str) -> Any:
    health: Any = health_pb2_grpc.HealthStub(server.channel)
    return (await health.Check(health_pb2.HealthCheckRequest(service=service))).status


@pytest.mark.parametrize("service", ["", SERVICE])
@pytest.mark.parametrize("is_there", [True, False])
async def test_it_is_known_from_the_first_call_on(service: str, is_there: bool) -> None:
    dependency = Dependency(is_there=is_there)
    async with running(checked(dependency.check), Unary=echo) as server:
        status = await ask(server, service)

    assert status == (SERVING if is_there else NOT_SERVING)


async def test_without_a_check_it_serves() -> None:
    async with running(Unary=echo) as server:
        assert await ask(server, "") == SERVING


async def test_a_check_that_raises_has_failed() -> None:
    async def fail() -> bool:
        raise ConnectionError

    async with running(checked(fail), Unary=echo) as server:
        assert await ask(server, "") == NOT_SERVING


async def test_a_change_is_told_to_those_who_watch() -> None:
    dependency = Dependency(is_there=True)
    async with running(checked(dependency.check), Unary=echo) as server, asyncio.timeout(20):
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        seen = [(await watch.read()).status]
        for is_there in (False, True):
            dependency.is_there = is_there
            seen.append((await watch.read()).status)
        watch.cancel()

    assert seen == [SERVING, NOT_SERVING, SERVING]


async def test_an_unknown_service_is_not_found() -> None:
    async with running(Unary=echo) as server:
        error = await failure(ask(server, "no.such.Service"))

    assert error.code() is grpc.StatusCode.NOT_FOUND
