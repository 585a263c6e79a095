"""Which requests of Anthropic's client are billed, and how their answers are read."""

from typing import Any, Final

from zaaz_client.adapters.readers import MessagesReader, Reader

_MESSAGES: Final = "/v1/messages"


def reader_of(options: Any, stream: bool) -> Reader | None:
    """None for what is not billed."""
    path = options.url.partition("?")[0]  # the beta API may have "?beta=true" there
    is_message = options.method.lower() == "post" and path == _MESSAGES
    return MessagesReader() if is_message else None
