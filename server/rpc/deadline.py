"""Every unary call ends: by the caller's deadline or by the server's own."""

import asyncio
from typing import Final

from server.kernel.errors import DomainError, Reason
from server.rpc.call import Call, Step

UNARY_SECONDS: Final = 30.0
"""For callers who set no deadline. Those who did are cancelled by grpc when theirs passes."""


def bounded(inner: Step, seconds: float) -> Step:
    """`inner`, ended with DEADLINE_EXCEEDED after `seconds` when the caller set no deadline."""

    async def run(call: Call) -> bytes | None:
        if call.context.time_remaining() is not None:
            return await inner(call)
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                return await inner(call)
        except TimeoutError:
            if not timeout.expired():
                raise  # a handler's own: a defect, not this deadline
            raise _exceeded(seconds) from None

    return run


def _exceeded(seconds: float) -> DomainError:
    return DomainError(
        Reason.DEADLINE_EXCEEDED,
        f"the server's own limit of {seconds:g} s ran out: retry with the same request_id",
        {"limit_seconds": f"{seconds:g}"},
    )
