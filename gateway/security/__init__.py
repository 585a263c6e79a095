"""What stands between browsers and the application.

connections   the connection itself: sizes, time-outs, what is not HTTP (`hardened`)
  headers     strict headers on every answer
  cors        which pages may read it; preflights end here
  failures    an exception becomes a 500 with an id
  proxies     who the client is
  rates       how often it may call
  bodies      how much it may send
    application
"""

import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp

from gateway.security.bodies import BodyLimit
from gateway.security.connections import guarded
from gateway.security.cors import Cors
from gateway.security.failures import Failures
from gateway.security.headers import StrictHeaders
from gateway.security.proxies import TrustedProxies
from gateway.security.rates import RateLimit
from gateway.security.settings import NAMES, SecuritySettings

__all__ = ["NAMES", "SecuritySettings", "hardened", "secured"]


def secured(
    app: ASGIApp, settings: SecuritySettings, clock: Callable[[], float] = time.monotonic
) -> ASGIApp:
    """`app` behind everything above but the connection. `clock` is in seconds and only goes on."""
    app = BodyLimit(app, settings.max_body_bytes, settings.body_limits)
    app = RateLimit(app, settings.rate_per_second, settings.key_rate_per_second, clock)
    app = TrustedProxies(app, settings.trusted_proxies)
    app = Failures(app)
    app = Cors(app, settings.cors_origins)
    return StrictHeaders(app)


def hardened(settings: SecuritySettings) -> dict[str, Any]:
    """Arguments of `uvicorn.Config` that this house's safety rests on; none may be overridden."""
    return {
        "http": guarded(settings),
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "timeout_keep_alive": settings.idle_timeout_seconds,
    }
