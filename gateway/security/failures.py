"""What the application did not expect: an error id for the caller, the rest for the log."""

import logging
import secrets

from starlette.requests import ClientDisconnect

from gateway.problems import Problem, problem
from gateway.security.asgi import ASGIApp, Message, Receive, Scope, Send, send_problem

_ERROR_ID_BYTES = 8
_log = logging.getLogger(__name__)


class Failures:
    """Turns an exception into a 500 that tells nothing but where to look.

    An answer that has begun is left unfinished, which ends its connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001
            error_id = _logged(scope, error)
            if not begun:
                await send_problem(send, _told(error_id))


def _logged(scope: Scope, error: Exception) -> str:
    """The id of the line that has it all. The query stays out: it may hold a ticket."""
    error_id = secrets.token_hex(_ERROR_ID_BYTES)
    fields = {"method": scope["method"], "path": scope["path"], "error_id": error_id}
    _log.error("a request failed", exc_info=error, extra={"fields": fields})
    return error_id


def _told(error_id: str) -> Problem:
    return problem(
        500,
        "Internal Server Error",
        "something broke here; the gateway's log has the error_id",
        reason="INTERNAL",
        metadata={"error_id": error_id},
    )
