"""One RPC on its way through the edge."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

from server.kernel.principal import Principal
from server.rpc.drain import OpenStream

Metadata = Sequence[tuple[str, str | bytes]]
ServicerContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class Method:
    """What is known of a method before it is called. `name` is "/package.Service/Method"."""

    name: str
    request_streaming: bool
    response_streaming: bool

    @property
    def is_unary(self) -> bool:
        """One request, one response."""
        return not (self.request_streaming or self.response_streaming)

    @property
    def is_watch(self) -> bool:
        """One request, a stream of responses."""
        return self.response_streaming and not self.request_streaming


@dataclass(slots=True)
class Call:
    """One RPC: `context` speaks bytes; `raw` is the request of a single-message request."""

    method: Method
    context: ServicerContext
    metadata: Metadata
    raw: bytes | None = None
    principal: Principal | None = None
    stream: OpenStream | None = None
    messages_in: int = 0
    messages_out: int = 0
    started: float = field(default_factory=time.perf_counter)


Step = Callable[[Call], Awaitable[bytes | None]]
"""Answers a call with a response's bytes; None where responses were written to its context."""


def current_task() -> "asyncio.Task[object]":
    """The task of the RPC that is running; grpc gives each one of its own."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an RPC runs in a task of its own")
    return task
