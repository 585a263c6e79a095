"""What LiteLLM knows of a stream that broke."""

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import litellm

_log = logging.getLogger("zaaz_client")


def usage_of_broken_stream(told: Mapping[str, Any]) -> Any:
    """What came of a call that failed, as LiteLLM counts it; None for nothing.

    `told` is what LiteLLM tells callbacks. It has the usage of an asynchronous
    stream in it. Of a synchronous one the chunks are counted here, as LiteLLM
    would.
    """
    usage = told.get("combined_usage_object")
    if usage is not None or not told.get("stream"):
        return usage
    chunks = _chunks_of(told.get("exception"))
    if not chunks:
        return None
    try:
        whole = litellm.stream_chunk_builder(chunks, messages=told.get("messages"))
    except Exception:  # noqa: BLE001 - LiteLLM raises its own, for what it cannot put together
        _log.exception("not billed, for a broken stream cannot be counted: %s", told.get("model"))
        return None
    return getattr(whole, "usage", None)


def _chunks_of(error: Any) -> list[Any]:
    """The chunks that had come when this was raised.

    LiteLLM tells callbacks neither these nor the stream that has them. It is
    the stream's own method that has caught the error, so it is on its traceback.
    """
    step: TracebackType | None = getattr(error, "__traceback__", None)
    while step is not None:
        stream = step.tb_frame.f_locals.get("self")
        if isinstance(stream, litellm.CustomStreamWrapper):
            return list(stream.chunks)
        step = step.tb_next
    return []
