"""`python -m gateway`: serve REST until SIGTERM."""

import asyncio
import gc
import json
import os
import signal
import sys
from typing import Final

import uvloop

from gateway.config import Settings, SettingsError
from gateway.logs import configure_logging
from gateway.serving import CannotServeError, serving

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
COLLECTOR_THRESHOLD: Final = 100_000
"""New objects between two walks of the youngest generation."""


def main() -> int:
    """Serves; the exit code. 2: the settings are wrong."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        return _complain(str(error), EXIT_SETTINGS)
    configure_logging(settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except CannotServeError as error:
        return _complain(str(error), EXIT_FAILED)
    return 0


async def _run(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Its one line on stdout says that it does."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as address:
        _calm_collector()
        sys.stdout.write(json.dumps({"ready": True, "rest": str(address)}) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _calm_collector() -> None:
    """What start-up made is never looked at again, and requests make next to no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTOR_THRESHOLD, 50, 100)


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"zaaz: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
