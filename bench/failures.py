"""What went wrong, in a few lines: figures fail in more ways than they raise BenchError."""

import traceback
from pathlib import Path

import grpc

from bench.processes import BenchError

_HERE = Path(__file__).parent


def explain(error: BaseException) -> str:
    """Each different thing that went wrong, where, and what was noted of it on the way."""
    return "\n".join((*_said(error), *getattr(error, "__notes__", ())))


def _said(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        # Many callers fail at once, and mostly for one reason.
        return list(dict.fromkeys(explain(each) for each in error.exceptions))
    if isinstance(error, BenchError):
        return [str(error)]
    if isinstance(error, grpc.aio.AioRpcError):
        return [f"{error.code().name}: {error.details()}{_place(error)}"]
    said = ": ".join(filter(None, (type(error).__name__, str(error))))
    return [f"{said}{_place(error)}"]


def _place(error: BaseException) -> str:
    """The innermost line of the bench that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_HERE)]
    return f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
